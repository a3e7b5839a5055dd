"""A run's place in the line of those that wait: it looks again and again, and once its turn has come it takes its
memory before the others look.

Its turn comes once the run it is to come after has ended, none before it could start, no other run of finetui is on
its device (two at once each take twice as long, and their memory is less sure), and its memory is free.
"""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.run.directory import RunDirectory, runs_root
from engine.run.start import Start
from engine.run.waiting.claims import Claim, drop_claim, left_claim, write_claim
from engine.run.waiting.line import join, standing
from engine.run.waiting.look import Look
from engine.run.waiting.neighbours import neighbours
from engine.run.waiting.order import holding_the_line
from engine.run.waiting.predecessor import has_ended, require_run
from engine.run.waiting.room import estimate_for, room_on
from profiles.problem import Problem

if TYPE_CHECKING:
    from engine.spec import RunSpec
    from profiles.hardware import Hardware

FIRST_LOOK_SECONDS = 60.0
"""For the first look. A driver that nobody keeps awake takes half a minute on a machine of eight GPUs."""

LOOK_SECONDS = 2.0
"""Between two looks at the memory; a driver takes some milliseconds for one."""

SILENT_SECONDS = 30.0
"""After so long without a look, fifteen of them missed, a run holds up the others no more, and says that it is stuck.
A driver that has to be woken for a look takes a few seconds."""

# What a person would see as news: free memory moves by this share of the device all the time, and each time it is told
# a line goes into the journal of a run that may wait for days.
_NEWS_SHARE = 1 / 64
_NEWS_SECONDS = 30.0


def read_hardware() -> Hardware:
    """The machine as it is now."""
    from profiles.hardware import probe

    return probe(runs_root())


class PlaceInLine:
    """One waiting run. `look` is asked again and again until it says that the run's turn has come.

    It reads the machine in a thread of its own, so that a driver that hangs holds up neither a stop nor the journal.
    """

    def __init__(self, run: RunDirectory, spec: RunSpec, start: Start):
        """Take a place in the line; one whose engine died while it waited still waits for the same run. Raises Problem
        for a model that cannot be read, and where the run would wait for itself or for one that there is not, OSError.
        """
        self._run = run
        if start.after is not None:
            require_run(start.after)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="queue")
        self._claiming = threading.Lock()
        self._has_left = False
        hardware = self._first_hardware()
        self._estimate = estimate_for(spec, hardware)
        room = room_on(hardware, self._estimate, neighbours(run))
        left = left_claim(run)
        waited_for = left.after if left is not None and left.waiting else ""
        claim = Claim(
            room.device,
            room.needed_bytes,
            left.since if left is not None else time.time(),
            waiting=True,
            after=start.after or waited_for,
            beside=start.beside or (left is not None and left.beside),
        )
        self.claim = join(run, claim)
        self._pending: Future[tuple[bool, Look]] | None = None
        self._asked_at = float("-inf")
        self._told: dict[str, Any] | None = None
        self._told_at = float("-inf")
        self._last_signs: dict[str, tuple[int, float]] = {}
        self._seen = self._look_around(hardware)

    def look(self) -> tuple[bool, dict[str, Any] | None]:
        """Whether the memory is this run's now, and the fields of a `queued` event when there is news. Never waits."""
        if self._pending is None:
            if time.monotonic() - self._asked_at >= LOOK_SECONDS:
                self._asked_at = time.monotonic()
                self._pending = self._thread.submit(self._ask)
            return False, None
        if not self._pending.done():
            if time.monotonic() - self._asked_at < SILENT_SECONDS:
                return False, None
            return False, self._news(f"has long had no answer about {self.claim.device}; its driver may hang")
        pending, self._pending = self._pending, None
        try:
            granted, self._seen = pending.result()
        except (OSError, Problem) as error:  # such as a disk that is full; it looks again
            said = error.strerror if isinstance(error, OSError) else f"{error.where}: {error.what}"
            return False, self._news(f"cannot tell whether its turn has come: {said}")
        if granted:
            self._thread.shutdown(wait=False)
        return granted, None if granted else self._news()

    def leave(self, *, comes_back: bool) -> None:
        """Wait no more; a run that `comes_back` keeps its place for the engine that will be started for it."""
        with self._claiming:
            self._has_left = True
            if not comes_back:
                drop_claim(self._run)
                return
            with suppress(OSError):  # its turn may just have come
                write_claim(self._run, self.claim)

    def _first_hardware(self) -> Hardware:
        """The machine as it is now. Raises Problem where a driver hangs."""
        try:
            return self._thread.submit(read_hardware).result(FIRST_LOOK_SECONDS)
        except TimeoutError:
            what = (
                f"cannot wait for its memory: a driver of this machine does not answer for {FIRST_LOOK_SECONDS:.0f} s"
            )
            fix = "See whether `nvidia-smi` answers; if it does not, restart the machine."
            raise Problem(self._run.name, what, fix) from None

    def _write(self, claim: Claim) -> bool:
        """Put it into the run's folder, unless the run has left the line; whether that was done. Raises OSError."""
        with self._claiming:
            if not self._has_left:
                write_claim(self._run, claim)
            return not self._has_left

    def _ask(self) -> tuple[bool, Look]:
        hardware = read_hardware()
        if self.claim.after and has_ended(self.claim.after):
            self.claim = replace(self.claim, after="")  # for good, though that run may be resumed later
        if left_claim(self._run) != self.claim:  # it may have been damaged or lost, too
            self._write(self.claim)
        os.utime(self._run.claim_path)  # the others see that this one looks
        seen = self._look_around(hardware)
        if not seen.its_turn:
            return False, seen
        with holding_the_line():
            again = self._look_around(hardware)
            # One that began since the machine was read may have taken of the memory that was free then.
            if not again.its_turn or again.training != seen.training:
                return False, again
            return self._write(replace(self.claim, waiting=False)), again

    def _look_around(self, hardware: Hardware) -> Look:
        around = neighbours(self._run)
        stands = standing(self._run, self.claim, around)
        return Look(
            self.claim,
            room_on(hardware, self._estimate, around),
            stands.place,
            sum(not self._is_silent(other) for other in stands.ahead),
            tuple(each.run.name for each in around if each.trains_on(self.claim.device)),
        )

    def _is_silent(self, other: RunDirectory) -> bool:
        """Whether a waiting run has not looked for long, by this process's own clock: a wall clock may be set."""
        try:
            sign = other.claim_path.stat().st_mtime_ns
        except OSError:
            return False
        last, since = self._last_signs.get(other.name, (None, 0.0))
        if sign != last:
            self._last_signs[other.name] = (sign, time.monotonic())
            return False
        return time.monotonic() - since > SILENT_SECONDS

    def _news(self, trouble: str = "") -> dict[str, Any] | None:
        """What there is to tell, if a person does not know it yet."""
        facts, told, now = self._seen.news(trouble), self._told, time.monotonic()
        if told is None or _gist(told) != _gist(facts):
            is_news = True
        else:
            is_news = now - self._told_at >= _NEWS_SECONDS and told["text"] != facts["text"] and _moved(told, facts)
        if not is_news:
            return None
        self._told, self._told_at = facts, now
        return facts


def _gist(facts: dict[str, Any]) -> list[Any]:
    """What of a `queued` event's fields is news whenever it changes."""
    return [facts[name] for name in ("place", "ahead", "after", "others", "trouble")]


def _moved(told: dict[str, Any], facts: dict[str, Any]) -> bool:
    """Whether the memory is taken by others, or clearly more or less of it is free."""
    before, after = ({holder["pid"] for holder in each["holders"]} for each in (told, facts))
    return before != after or abs(told["free_bytes"] - facts["free_bytes"]) >= facts["total_bytes"] * _NEWS_SHARE
