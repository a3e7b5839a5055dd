"""Writing on a disk that may be full: the run pauses, says so, and goes on by itself once there is room."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from engine.run.disk_room import disk_is_full, free_bytes, is_read_only, with_overhead
from engine.run.sizes import size_text
from engine.train.talk import Talk
from profiles.problem import Problem

# Between two looks at a disk that is full; and between two tries where a write was refused though there seemed to be
# room: a quota is not seen from outside.
ROOM_INTERVAL_SECONDS, REFUSED_INTERVAL_SECONDS = 0.5, 10.0

Written = TypeVar("Written")


class NoRoomError(Exception):
    """A person asked the run to stop while it waited for room on the disk; the text says for what."""


def until_written(
    folder: Path, size: int, what: str, write: Callable[[], Written], talk: Talk, *, needed: bool = True
) -> Written:
    """Call `write`, which writes `size` bytes on the disk of `folder`, once that has room for them, and again where it
    was full still. What is `needed` waits for a disk that became read-only, too: the kernel makes it so after errors,
    and a person puts that right.

    Raises NoRoomError when a stop was asked for meanwhile, and what `write` raises for other reasons.
    """
    refused = False
    while True:
        least_seconds = REFUSED_INTERVAL_SECONDS if refused else 0.0
        _wait_until_writable(folder, size, what, least_seconds, talk, read_only_too=needed)
        try:
            return write()
        except (Problem, OSError) as error:
            cause = error.__cause__ if isinstance(error, Problem) else error
            if not disk_is_full(cause) and not (needed and is_read_only(folder)):
                raise
            refused = True


def _wait_until_writable(
    folder: Path, size: int, what: str, least_seconds: float, talk: Talk, *, read_only_too: bool
) -> None:
    """Pause until the disk of `folder` takes writes (if it matters) and has room for `size` bytes, and for
    `least_seconds` at least."""
    before, told, began = talk.phase_name, "", time.monotonic()
    needed = with_overhead(size)
    while True:
        instead = "stop again to end without it" if talk.stopping else "stop"
        free = free_bytes(folder)
        if read_only_too and is_read_only(folder):
            text = f"{what} cannot be written, the disk of runs is read-only: make it writable again, or {instead}"
        elif free < needed:
            text = f"{what} needs {size_text(needed)}, {size_text(free)} free on the disk of runs: free some space, "
            text += f"or {instead}"
        elif time.monotonic() - began < least_seconds:
            text = f"{what} needs {size_text(needed)}, {size_text(free)} free on the disk of runs, which took no more "
            text += f"(is there a quota?): free some space, or {instead}"
        else:
            break
        if text != told:
            talk.phase("paused", text)
            told = text
        if talk.stop_asked():
            talk.stopping = True
            raise NoRoomError(what)
        time.sleep(ROOM_INTERVAL_SECONDS)
    if told:
        talk.phase(before, what)
