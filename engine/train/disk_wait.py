"""Writing on a disk that may be full: the run pauses, says so, and goes on by itself once there is room."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from engine.run.disk_room import disk_is_full, free_bytes, with_overhead
from engine.run.sizes import size_text
from engine.train.talk import Talk
from profiles.problem import Problem

# Between two looks at a disk that is full; and between two tries where a write was refused though there seemed to be
# room: a quota is not seen from outside.
ROOM_INTERVAL_SECONDS, REFUSED_INTERVAL_SECONDS = 0.5, 10.0

Written = TypeVar("Written")


class NoRoomError(Exception):
    """A person asked the run to stop while it waited for room on the disk; the text says for what."""


def until_written(folder: Path, size: int, what: str, write: Callable[[], Written], talk: Talk) -> Written:
    """Call `write`, which writes `size` bytes on the disk of `folder`, once that has room for them, and again where it
    was full still.

    Raises NoRoomError when a stop was asked for meanwhile, and what `write` raises for other reasons.
    """
    refused = False
    while True:
        _wait_for_room(folder, size, what, REFUSED_INTERVAL_SECONDS if refused else 0.0, talk)
        try:
            return write()
        except (Problem, OSError) as error:
            if not disk_is_full(error.__cause__ if isinstance(error, Problem) else error):
                raise
            refused = True


def _wait_for_room(folder: Path, size: int, what: str, least_seconds: float, talk: Talk) -> None:
    """Pause until the disk of `folder` has room for `size` bytes, and for `least_seconds` at least."""
    before, told, began = talk.phase_name, "", time.monotonic()
    instead = "stop again to end without it" if talk.stopping else "stop"
    needed = with_overhead(size)
    while (free := free_bytes(folder)) < needed or time.monotonic() - began < least_seconds:
        text = f"{what} needs {size_text(needed)}, {size_text(free)} free on the disk of runs"
        if free >= needed:
            text += ", which took no more (is there a quota?)"
        if text != told:
            talk.phase("paused", f"{text}: free some space, or {instead}")
            told = text
        if talk.stop_asked():
            talk.stopping = True
            raise NoRoomError(what)
        time.sleep(ROOM_INTERVAL_SECONDS)
    if told:
        talk.phase(before, what)
