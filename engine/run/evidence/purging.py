"""Removing a run with all that finetui keeps of it elsewhere: planned, told, and gone on with where it was cut off.

Before anything is removed a note of the plan lies in finetui's home, and the run's spec.toml goes first: from then on
there is no run any more, but an unfinished purge, which the next one of the same name ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.home import home
from engine.run.directory import RunDirectory, disk_problem, list_runs
from engine.run.durable_files import sync, write_atomically
from engine.run.evidence.audit import append_entry, read_audit
from engine.run.evidence.caches import Caches, caches_of, file_status
from engine.run.evidence.heads import drop_head
from engine.run.liveness import liveness
from engine.run.processes.lock import let_go, take_lock
from engine.run.processes.recorded import recorded_processes
from engine.run.waiting.order import holding_the_line, read_order, write_order
from engine.seal.policy.caches import library_caches
from profiles.problem import Problem

# Of an engine that has let go of its run: the kernel takes milliseconds for the rest, on a machine that swaps seconds.
_ENDING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PurgePlan:
    """What removing a run takes away, and what it cannot."""

    run: RunDirectory
    caches: Caches
    folder_bytes: int
    """What the run's folder alone takes on the disk: shards that the cache or other runs hold too are not counted."""
    cache_bytes: int
    exports: tuple[Path, ...]
    """What was exported to other places, where it still is."""
    base: Path | None
    data: tuple[Path, ...]
    entries: int
    head: str
    """Of the audit log, which goes with the run: the home's log of purges keeps it."""
    libraries_bytes: int = 0
    """What libraries compiled for the run."""

    @property
    def bytes(self) -> int:
        return self.folder_bytes + self.cache_bytes + self.libraries_bytes


def plan_purge(run: RunDirectory) -> PurgePlan:
    """What to remove. Raises Problem for a run that is live, or whose trainer is, and where the disk cannot be read."""
    _require_dead(run)
    try:
        others = [other for other in list_runs() if other.path.resolve() != run.path.resolve()]
        caches = caches_of(run, others)
        base, data = _inputs(run)
        chain = read_audit(run)
        exported = [run.path / str(entry.facts.get("path")) for entry in chain.entries if entry.what == "exported"]
        return PurgePlan(
            run=run,
            caches=caches,
            folder_bytes=sum(_own_bytes(path, caches.shards) for path in _files_in(run.path)),
            cache_bytes=sum(status.st_size for path in caches.files if (status := file_status(path)) is not None),
            exports=tuple(
                path for path in dict.fromkeys(exported) if path.exists() and not path.is_relative_to(run.path)
            ),
            base=base,
            data=tuple(path for path in data if path not in caches.files),
            entries=len(chain.entries),
            head=chain.head,
            libraries_bytes=sum(path.lstat().st_size for path in _files_in(library_caches(run.name))),
        )
    except OSError as error:
        raise disk_problem(run.path, error) from None


def purge(plan: PurgePlan) -> None:
    """Remove all that the plan says, and write into the home's log of purges that it was. Raises Problem: the run has
    become live, or the disk does not let us; what is left then is ended by another purge of the same name."""
    run = plan.run
    try:
        lock = _take(run)
        try:
            _require_dead(run, held=True)
            note = _note_path(run)
            _write_note(note, plan)
            run.spec_path.unlink(missing_ok=True)
            sync(run.path)
            _remove(note)
        finally:
            let_go(lock)
    except OSError as error:
        raise disk_problem(run.path, error) from None


def unfinished_purge(text: str) -> Path | None:
    """The note of the only purge that was cut off of a run that `text` means: its path, its name or a part of it. None
    without, and for one that was cut off before it had removed anything: that run is whole."""
    folder, found = home() / "purging", []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        with suppress(OSError, ValueError, KeyError, TypeError):
            run = RunDirectory(Path(json.loads(path.read_bytes())["run"]))
            is_meant = Path(text).expanduser().absolute() == run.path if os.sep in text else text in run.name
            if text and is_meant and not run.spec_path.is_file():
                found.append(path)
    return found[0] if len(found) == 1 else None


def end_purge(note: Path) -> str:
    """Go on with a purge that was cut off; the name of its run. Raises Problem where another one is at it, or the disk
    does not let us."""
    try:
        values = json.loads(note.read_bytes())
        run = RunDirectory(Path(values["run"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise Problem(str(note), "is damaged", "Remove that file, and what is left of the run's folder.") from None
    try:
        lock = _take(run) if run.path.is_dir() else None
        try:
            if lock is not None:
                _require_dead(run, held=True)
                run.spec_path.unlink(missing_ok=True)
            _remove(note)
        finally:
            if lock is not None:
                let_go(lock)
    except OSError as error:
        raise disk_problem(run.path, error) from None
    return run.name


def purge_log() -> Path:
    """Where the home says which runs were removed, when and by whom: lines as an audit log's."""
    return home() / "purged.jsonl"


def _write_note(note: Path, plan: PurgePlan) -> None:
    """Raises OSError."""
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = {
        "run": str(plan.run.path),
        "bytes": plan.bytes,
        "audit_entries": plan.entries,
        "audit_head": plan.head,
        "remaining_exports": list(map(str, plan.exports)),
        "cache_files": list(map(str, plan.caches.files)),
    }
    write_atomically(note, json.dumps(facts).encode())


def _remove(note: Path) -> None:
    """All that the note says; the note itself last. Raises OSError."""
    facts = json.loads(note.read_bytes())
    run = RunDirectory(Path(facts["run"]))
    for path in map(Path, facts.pop("cache_files")):
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()  # only where it is empty now
    _leave_the_line(run)
    shutil.rmtree(library_caches(run.name), ignore_errors=True)
    if run.path.is_dir():
        shutil.rmtree(run.path)
        sync(run.path.parent)
    drop_head(run)
    append_entry(purge_log(), "purged", facts)
    for left in note.parent.iterdir():
        if left.name.startswith(f".{note.name}."):  # of a purge that was killed while it wrote its note
            left.unlink(missing_ok=True)
    note.unlink()
    sync(note.parent)


def _take(run: RunDirectory) -> int:
    """The run's lock, so that nobody starts it meanwhile. Raises Problem where somebody holds it, OSError."""
    try:
        return take_lock(run.lock_path)
    except BlockingIOError:
        raise _live(run) from None


def _require_dead(run: RunDirectory, *, held: bool = False) -> None:
    """Raises Problem for a run that is live (`held`: its lock is ours), and for one whose trainer outlived its engine
    and still writes."""
    try:
        if not held and liveness(run) == "live":
            raise _live(run)
    except OSError as error:
        raise disk_problem(run.path, error) from None
    processes = recorded_processes(run)
    if (engine := processes.get("supervisor")) is not None and engine.pid != os.getpid():
        engine.wait(_ENDING_SECONDS)  # it lets go of its lock a moment before it is gone
    if any(process.pid != os.getpid() and process.is_alive() for process in processes.values()):
        raise Problem(
            run.name, "has a trainer that outlived its engine", "`finetui doctor` ends it; then remove the run."
        )


def _live(run: RunDirectory) -> Problem:
    return Problem(run.name, "is live", f"Stop it first: `finetui stop {run.name}`.")


def _inputs(run: RunDirectory) -> tuple[Path | None, list[Path]]:
    """The base model's folder and the data's files, where the spec can still be read."""
    with suppress(Problem):
        spec = run.spec()
        return spec.model.path, [section.path for section in spec.data.sources]
    return None, []


def _leave_the_line(run: RunDirectory) -> None:
    # Else the next one that changes the line drops the name of a run that is gone.
    with suppress(OSError):
        if run.name in read_order():
            with holding_the_line():
                write_order([name for name in read_order() if name != run.name])


def _note_path(run: RunDirectory) -> Path:
    key = hashlib.blake2b(os.fsencode(run.path), digest_size=8).hexdigest()
    return home() / "purging" / f"{run.name}-{key}.json"


def _own_bytes(path: Path, going: frozenset[Path]) -> int:
    """Bytes that the disk gets back once `path` and the cache's files `going` are removed."""
    status = path.lstat()
    other_names = sum(1 for each in going if each.name == path.name)
    return status.st_size if status.st_nlink <= 1 + other_names else 0


def _files_in(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names)
