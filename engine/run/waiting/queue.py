"""A run's place in the line of those that wait for memory: the oldest goes first, and takes it before others look."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.run.directory import RunDirectory, runs_root
from engine.run.processes.lock import let_go, take_lock
from engine.run.waiting.claims import Claim, claims_of_others, write_claim
from engine.run.waiting.room import Room, estimate_for, room_on

if TYPE_CHECKING:
    from engine.spec import RunSpec
    from profiles.hardware import Hardware

LOOK_SECONDS = 2.0
"""Between two looks at the memory; a driver takes some milliseconds for one."""

_Answer = tuple[bool, dict[str, Any] | None]
"""Whether the memory was promised to the run just now; if not, why it waits still (None: nothing could be told)."""

# What a person would see as news: free memory moves by this share of the device all the time.
_NEWS_SHARE = 1 / 64


def read_hardware() -> Hardware:
    """The machine as it is now."""
    from profiles.hardware import probe

    return probe(runs_root())


class PlaceInLine:
    """One waiting run. `look` is asked again and again until it says that the run's turn has come.

    It reads the machine in a thread of its own, so that a driver that hangs holds up neither a stop nor the journal.
    """

    def __init__(self, run: RunDirectory, spec: RunSpec):
        """Take a place at the end of the line. Raises Problem for a model that cannot be read, OSError."""
        self._run = run
        hardware = read_hardware()
        self._estimate = estimate_for(spec, hardware)
        room = room_on(hardware, self._estimate, run)
        self.claim = Claim(room.device, room.needed_bytes, time.time(), waiting=True)
        write_claim(run, self.claim)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="queue")
        self._pending: Future[_Answer] | None = None
        self._asked_at = float("-inf")
        self._told: dict[str, Any] | None = None

    def look(self) -> tuple[bool, dict[str, Any] | None]:
        """Whether the memory is this run's now, and the fields of a `queued` event when there is news. Never waits."""
        if self._pending is None:
            if time.monotonic() - self._asked_at >= LOOK_SECONDS:
                self._asked_at = time.monotonic()
                self._pending = self._thread.submit(self._ask)
            return False, None
        if not self._pending.done():
            return False, None
        pending, self._pending = self._pending, None
        try:
            granted, facts = pending.result()
        except OSError:
            return False, None  # a machine that cannot be read now (its disk is full, say) is looked at again
        if facts is None or not self._is_news(facts):
            return granted, None
        self._told = facts
        return granted, facts

    def _ask(self) -> _Answer:
        hardware = read_hardware()
        try:
            lock = take_lock(runs_root() / ".queue.lock")
        except BlockingIOError:
            return False, None  # another run looks at this moment
        try:
            room = room_on(hardware, self._estimate, self._run)
            mine = (self.claim.since, self._run.name)
            line = claims_of_others(self._run, self.claim.device)
            ahead = sum(claim.waiting and (claim.since, other.name) < mine for other, claim in line)
            if ahead or not room.fits:
                return False, waiting_facts(room, ahead)
            self.claim = replace(self.claim, waiting=False)
            write_claim(self._run, self.claim)
            return True, None
        finally:
            let_go(lock)

    def _is_news(self, facts: dict[str, Any]) -> bool:
        told = self._told
        if told is None or told["ahead"] != facts["ahead"]:
            return True
        if [each["pid"] for each in told["holders"]] != [each["pid"] for each in facts["holders"]]:
            return True
        return abs(told["free_bytes"] - facts["free_bytes"]) >= facts["total_bytes"] * _NEWS_SHARE


def waiting_facts(room: Room, ahead: int) -> dict[str, Any]:
    """The fields of a `queued` event."""
    text = room.sentence() if not room.fits else f"needs {room.device} when its turn comes"
    if ahead:
        text += f"; {ahead} {'run waits' if ahead == 1 else 'runs wait'} before it"
    return {**room.as_dict(), "ahead": ahead, "text": text}
