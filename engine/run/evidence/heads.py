"""The head of each run's audit log, kept outside of the run's folder: which entry of it was the newest.

A log that was cut short, written anew or taken away is noticed by it. It lies in finetui's home, mode 0600, so it
protects from whoever may write to the run's folder and not to the home, and from accidents; who may write to both can
change both alike. Against that helps a head that was written down elsewhere: `finetui verify RUN --expect HEAD`.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.home import home
from engine.run.directory import RunDirectory, runs_root
from engine.run.durable_files import write_atomically


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry that was written to the log of the run in `run` (its folder): its number and hash."""

    run: str
    n: int
    hash: str


def read_head(run: RunDirectory) -> Head | None:
    """What is kept for this folder, or, where the run lay among this home's runs before, for that."""
    found = _read(head_path(run))
    if found is None and not (runs_root() / run.name).exists():
        found = _read(_place(run.name))
    return found


def write_head(run: RunDirectory, n: int, entry_hash: str) -> None:
    """Keep entry `n` as the newest. Raises OSError."""
    path = head_path(run)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(Head(str(run.path), n, entry_hash))).encode() + b"\n")


def drop_head(run: RunDirectory) -> None:
    """Keep nothing more for this folder, which is gone or about to go. Raises no error: what stays is found there by
    nobody."""
    path = head_path(run)
    with suppress(OSError):
        path.unlink(missing_ok=True)
        for left in path.parent.iterdir():
            if left.name.startswith(f".{path.name}."):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)


def head_path(run: RunDirectory) -> Path:
    """Where the head of a run is kept; that of a run elsewhere than among this home's runs by its whole path."""
    folder = run.path.absolute()
    if folder.parent == runs_root():
        return _place(run.name)
    return _place(f"{run.name}@{hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()}")


def _place(name: str) -> Path:
    return home() / "heads" / f"{name}.json"


def _read(path: Path) -> Head | None:
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        fields = json.loads(path.read_bytes())
        return Head(str(fields["run"]), int(fields["n"]), str(fields["hash"]))
    return None
