"""What a run's engine writes into the audit log and the lineage while the run lives, from the events it journals."""

from __future__ import annotations

import hashlib
import os
import re
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.run.checkpoints.manifest import MANIFEST, checkpoint_path, saved_circumstances
from engine.run.directory import RunDirectory
from engine.run.evidence.audit import record
from engine.run.evidence.findings import DAMAGE, reason
from engine.run.evidence.hashing import file_hashes, read_plain, small_sha256
from engine.run.evidence.lineage import change_lineage, read_lineage, write_lineage
from engine.run.evidence.own_files import kept_digest

_CONTENTS = re.compile(r"([\d,]+) bytes of SHA-256 ([0-9a-f]{64})")
_BASE = ("base", "base weights", "tokenizer")
_OF_THE_MACHINE = frozenset(
    {
        *("torch", "transformers", "accelerate", "finetui", "peft", "bitsandbytes"),
        *("device", "dtype", "attention", "threads"),
    }
)
"""Circumstances that are those of libraries and device, and not of the settings, the data or the base."""
# Fields of events that say more than a log of what was done needs.
_LEFT_OUT = frozenset({"v", "seq", "at", "kind", "crc", "text", "evidence", "worker_pid"})
_TAKEN_OVER = {
    "way_out": "way_out",
    "ladder": "adjusted",
    "adjusted": "adjusted",
    "continued": "continued",
    "restart": "restarted",
    "control": "asked",
    "seal_check": "seal_check",
}
_BLOCK_BYTES = 1 << 20
# Nobody of ours holds a log's lock for longer than a moment. A worker that was taken over may hold it for good, and the
# engine, which waits ten seconds for it, has other things to do.
_PAUSE_SECONDS = 60.0
# An entry is brought onto the disk with the log's head: three waits for it. Of what was saved since the last entry more
# than a few are gone again by the next.
_BETWEEN_SECONDS, _MOST_UNRECORDED = 1.0, 100


class AuditKeeper:
    """Keeps the evidence of one run. It raises nothing that a full disk does: `tell` hears, once, what could not be
    written, and training goes on; `write` calls what it is given, with the space in reserve where the disk is full."""

    def __init__(
        self,
        run: RunDirectory,
        tell: Callable[[str], None],
        write: Callable[[Callable[[], None]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._tell, self._write = run, tell, write
        self._journal = _JournalHash(run.events_path)
        self._is_told = False
        self._paused_until = 0.0
        self._clock, self._recorded_at = clock, -_BETWEEN_SECONDS
        self._unrecorded: list[int] = []

    def started(self, resumed: bool, options: Sequence[str]) -> None:
        """An engine took the run, with these `options` of its command line (see engine.run.start)."""
        self._keep(lambda: record(self._run, "resumed" if resumed else "started", options=list(options)))

    def journalled(self, kind: str, fields: Mapping[str, Any]) -> None:
        """The event was journalled, or should have been."""
        told = {name: value for name, value in fields.items() if name not in _LEFT_OUT}
        if kind in _TAKEN_OVER:
            self._keep(lambda: record(self._run, _TAKEN_OVER[kind], **told))
            if kind == "continued":
                self._keep(lambda: self._add("continued", {"step": told.get("step"), "changes": told.get("changes")}))
        elif kind == "attempt":
            self._keep(lambda: record(self._run, "attempt", **told, journal=self._journal.now()))
        elif kind == "seal":
            self._keep(lambda: record(self._run, "sealed", **_seal(fields)))
            self._keep(lambda: self._keep_seal(fields))
        elif kind == "checkpoint" and type(step := fields.get("step")) is int:  # as the worker said
            self._unrecorded = [*(each for each in self._unrecorded[-_MOST_UNRECORDED:] if each != step), step]
            self.look()
        elif kind == "end":
            self._paused_until = 0.0
            self.look(everything=True)
            self._keep(lambda: self._ended(told))

    def look(self, *, everything: bool = False) -> None:
        """Record the checkpoints that wait for it; to be called about once a second. A run that saves after each step
        has one entry a second for all of them."""
        if self._unrecorded and (everything or self._clock() - self._recorded_at >= _BETWEEN_SECONDS):
            steps, self._unrecorded = self._unrecorded, []
            self._recorded_at = self._clock()
            self._keep(lambda: self._checkpoints(steps))

    def prepared(self, data: Any) -> None:
        """The trainer says where the data came from, and what was made of it."""
        self._keep(lambda: write_lineage(self._run, {"data": data}))

    def _checkpoints(self, steps: Sequence[int]) -> None:
        """The last one, and of those before it what was not removed for newer ones meanwhile."""
        *before, step = steps
        folder = checkpoint_path(self._run.checkpoints, step)
        paths = {each: checkpoint_path(self._run.checkpoints, each) / MANIFEST for each in steps}
        hashes = {each: small_sha256(path, root=self._run.path) for each, path in paths.items()}
        others = {str(each): hashes[each] for each in before if hashes[each] is not None}
        told = {"others": others} if others else {}
        record(self._run, "checkpoint", step=step, manifest_sha256=hashes[step], **told, journal=self._journal.now())
        circumstances = saved_circumstances(folder)
        if circumstances:
            write_lineage(self._run, _sections(self._run, circumstances))

    def _keep_seal(self, fields: Mapping[str, Any]) -> None:
        self._add("seal", {**_seal(fields), "text": fields.get("text", "")})

    def _add(self, section: str, entry: Mapping[str, Any]) -> None:
        """To a section of the lineage that is a list."""
        told = {"at": time.time(), **entry}
        change_lineage(self._run, lambda before: {section: [*(before.get(section) or ()), told]})

    def _ended(self, told: Mapping[str, Any]) -> None:
        found: dict[str, Any] = {}
        try:
            found["outputs"] = {path.name: file_hashes(path) for path in _outputs(self._run)}
            found["kept"] = kept_digest(self._run)
        except OSError as error:  # a failing disk, or what a worker left there for that
            # The end is recorded all the same.
            found["unread"] = reason(error)
        record(self._run, "ended", **told, **found, journal=self._journal.now())

    def _keep(self, write: Callable[[], None]) -> None:
        if time.monotonic() < self._paused_until:
            return
        try:
            self._write(write)
        except DAMAGE as error:  # a disk, or a worker that says what none of ours would
            if isinstance(error, TimeoutError):
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
            if not self._is_told:
                self._is_told = True
                self._tell(f"the audit log lacks entries: it could not be written ({reason(error)})")


class _JournalHash:
    """The SHA-256 of a journal as far as it goes, of which each byte is read once: it only grows."""

    def __init__(self, path: Path):
        self._path, self._read, self._digest = path, 0, hashlib.sha256()

    def now(self) -> dict[str, Any]:
        """Its bytes, and their hash. Raises OSError."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            while block := os.pread(descriptor, _BLOCK_BYTES, self._read):
                self._digest.update(block)
                self._read += len(block)
        finally:
            os.close(descriptor)
        return {"bytes": self._read, "sha256": self._digest.hexdigest()}


def _sections(run: RunDirectory, circumstances: Mapping[str, str]) -> dict[str, Any]:
    """The lineage of base and environment, from the circumstances that a checkpoint was saved under."""
    files: dict[str, dict[str, Any]] = {}
    for field, text in circumstances.items():
        kind, _, name = field.rpartition(" ")
        if kind in _BASE and (match := _CONTENTS.fullmatch(text)):
            files[name] = {"bytes": int(match[1].replace(",", "")), "sha256": match[2]}
    machine = {name: circumstances[name] for name in sorted(_OF_THE_MACHINE & circumstances.keys())}
    found: dict[str, Any] = {}
    if machine:
        found["environment"] = {**machine, "environment_sha256": small_sha256(run.environment_path)}
    if files:
        # A resume may find the model in another folder: what counts is what the files hold.
        before = read_lineage(run).get("base")
        same = isinstance(before, dict) and before.get("files") == files
        found["base"] = before if same else {"path": _model_path(run), "files": files}
    return found


def _model_path(run: RunDirectory) -> str:
    """As the spec says, without engine.spec, whose libraries the engine comes by without. Raises OSError, ValueError,
    KeyError, TypeError."""
    return str(tomllib.loads(read_plain(run.spec_path).decode())["model"]["path"])


def _seal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What of a seal event tells whether the seal held: its layers without their details, and how it was tried."""
    probes = fields.get("probes")
    kept = ("tried", "refused", "open", "hits", "control", "broken", "skipped")
    return {
        "attempt": fields.get("number"),
        "level": fields.get("level"),
        "layers": [
            {name: layer.get(name) for name in ("layer", "held", "why")} for layer in fields.get("layers") or ()
        ],
        "probes": {name: probes[name] for name in kept if name in probes} if isinstance(probes, Mapping) else None,
        "changed": list(fields.get("changed") or ()),
    }


def _outputs(run: RunDirectory) -> list[Path]:
    if not run.outputs.is_dir():
        return []
    folders = (path for path in run.outputs.iterdir() if path.is_dir() and not path.is_symlink())
    return sorted(path for path in folders if not path.name.startswith("."))
