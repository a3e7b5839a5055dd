"""The order of those that wait: one small file beside the runs, and the lock under which it is changed and gone by.

What is missing from the file stands behind what is in it, by age; so do all when the file is missing or damaged.
"""

from __future__ import annotations

import errno
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from engine.run.directory import RunDirectory, runs_root
from engine.run.durable_files import write_atomically
from engine.run.processes.lock import let_go, lock_holder, take_lock
from engine.run.waiting.claims import Claim, left_claim, read_small_json

ORDER_NAME = ".queue.json"
LOCK_NAME = ".queue.lock"

# The lock is held for the reading of some small files. Who cannot have it for so long looks again later.
_PATIENCE_SECONDS = 2.0
_PAUSE_SECONDS = 0.02

# A file's lock is the whole process's, and lost with the first descriptor of it that is closed.
_one_thread = threading.Lock()


@contextmanager
def holding_the_line() -> Iterator[None]:
    """Nobody else starts, joins or moves within the block. Raises BlockingIOError when another keeps it to itself,
    OSError where the disk has no locks."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    if not _one_thread.acquire(timeout=_PATIENCE_SECONDS):
        raise BlockingIOError(errno.EAGAIN, "another thread holds the line")
    try:
        lock = _lock_before(deadline)
        try:
            yield
        finally:
            let_go(lock)
    finally:
        _one_thread.release()


def read_order() -> list[str]:
    """The names of the runs that wait, the first first, as they were last put; those gone since may be among them."""
    values = read_small_json(runs_root() / ORDER_NAME)
    names = values.get("order") if isinstance(values, dict) else None
    return list(dict.fromkeys(name for name in names if isinstance(name, str))) if isinstance(names, list) else []


def write_order(names: Sequence[str]) -> None:
    """Put `names` in the place of the last order, but for those of runs that are gone or claim nothing any more; the
    line must be held. Raises OSError."""
    root = runs_root()
    # A run whose engine died with its claim keeps its place: it may be put back.
    kept = [name for name in names if name == RunDirectory(root / name).name and left_claim(RunDirectory(root / name))]
    write_atomically(root / ORDER_NAME, json.dumps({"order": kept}).encode() + b"\n")


def in_order(names: Sequence[str]) -> Callable[[tuple[RunDirectory, Claim]], tuple[int, float, str]]:
    """What to sort runs and their claims by, where `names` is the order."""
    places = {name: place for place, name in enumerate(names)}

    def key(pair: tuple[RunDirectory, Claim]) -> tuple[int, float, str]:
        run, claim = pair
        return places.get(run.name, len(places)), claim.since, run.name

    return key


def _lock_before(deadline: float) -> int:
    path = runs_root() / LOCK_NAME
    while True:
        try:
            return take_lock(path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BlockingIOError(errno.EAGAIN, f"process {lock_holder(path)} holds {path}") from None
            time.sleep(_PAUSE_SECONDS * random.uniform(0.5, 1.5))  # else two would go on meeting
