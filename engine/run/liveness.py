"""Whether a run lives: told by its lock and its journal, not by what it wrote down about itself."""

from __future__ import annotations

import time
from typing import Literal

from engine.run.directory import RunDirectory
from engine.run.processes.lock import lock_holder
from engine.run.telemetry.journal import last_event

Liveness = Literal["live", "ended", "died", "never started"]

# Between a run's folder and its engine's lock and first event lies the start of a process: seconds on a busy machine.
_STARTING_SECONDS = 30.0


def liveness(run: RunDirectory) -> Liveness:
    """live: an engine holds the run's lock. ended: none does, and the journal has its end. died: none does, and it
    has not. never started: there is no journal. Raises OSError when the folder cannot be read."""
    # The lock before the journal: an engine writes the end before it lets go.
    if lock_holder(run.lock_path) is not None:
        return "live"
    if not run.events_path.exists():
        return "never started"
    last = last_event(run.events_path)
    if last is not None and last["kind"] == "end":
        return "ended"
    # An engine that began after the first look at the lock has written to the journal since.
    return "live" if lock_holder(run.lock_path) is not None else "died"


def is_interrupted(life: Liveness, by_signal: bool) -> bool:
    """Whether nobody meant a run to end: its engine is gone without a word, as after a power cut, or was told to stop
    by a signal (its journal's end says so), as when the machine shuts down."""
    return life == "died" or (life == "ended" and by_signal)


def is_starting(run: RunDirectory) -> bool:
    """Whether a run that was never started may be about to be. Raises OSError, where its folder has no spec, too."""
    # A clock that was set since says nothing; then it is not.
    return abs(time.time() - run.spec_path.stat().st_mtime) < _STARTING_SECONDS
