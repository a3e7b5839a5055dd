"""How much a worker may say. What it says comes by a stream: what is not read yet waits there, and the worker with it,
so a worker that says too much at once is taken in more slowly, and nothing of it is lost. One that goes on beyond all
reason is ended by its supervisor.

The paces are beyond what any training of ours reaches, one that saves after each step among them; the totals are what a
disk and a reader's memory bear. Both are for one attempt.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.run.sizes import size_text
from engine.run.times import seconds_text

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Limit:
    """`at_once` of something is taken in as fast as it comes, from there on so much `per_second`, and `most` at all."""

    at_once: float
    per_second: float
    most: float


@dataclass(frozen=True, slots=True)
class Limits:
    """For the messages of some kinds: how many there may be, and how many bytes they may have."""

    messages: Limit
    bytes: Limit


OFTEN = Limits(Limit(200_000, 2_000, 50_000_000), Limit(64 * _MIB, 512 * _KIB, 16 * _GIB))
"""Steps, phases and shards to be linked: the disk is not waited for. The smallest model takes some 300 steps a second,
of 350 bytes each."""
SAVES = Limits(Limit(500, 50, 2_000_000), Limit(_MIB, 64 * _KIB, _GIB))
"""Checkpoints. A save itself waits for the disk several times, and so does what is written down of it."""
SELDOM = Limits(Limit(1_000, 20, 1_000_000), Limit(128 * _MIB, 64 * _KIB, _GIB))
"""All else, what is no message at all included: each is brought onto the disk, and most stay in the run's state."""

LIMITS: dict[str, Limits] = {"step": OFTEN, "phase": OFTEN, "keep_shard": OFTEN, "checkpoint": SAVES}


class _Meter:
    """One thing that is counted against its limit."""

    def __init__(self, limit: Limit):
        self._limit = limit
        self._paid_at = float("-inf")
        self.total = 0.0

    def take(self, amount: float, now: float) -> None:
        self.total += amount
        self._paid_at = max(self._paid_at, now) + amount / self._limit.per_second

    def wait_seconds(self, now: float) -> float:
        """How long from `now` until the pace allows more; 0 or less where it does."""
        return self._paid_at - now - self._limit.at_once / self._limit.per_second

    @property
    def is_beyond_reason(self) -> bool:
        return self.total > self._limit.most


class Allowance:
    """Of one worker."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._began = clock, clock()
        self._meters: dict[Limits, tuple[_Meter, _Meter]] = {}

    def take(self, kind: str, size_bytes: int) -> None:
        """A message of `kind` was taken in ("" for what is none)."""
        limits, now = LIMITS.get(kind, SELDOM), self._clock()
        if limits not in self._meters:
            self._meters[limits] = _Meter(limits.messages), _Meter(limits.bytes)
        messages, size = self._meters[limits]
        messages.take(1, now)
        size.take(size_bytes, now)

    def wait_seconds(self) -> float:
        """How long to take in no more; 0 where nothing is to be waited for."""
        now = self._clock()
        waits = (meter.wait_seconds(now) for pair in self._meters.values() for meter in pair)
        return max(0.0, max(waits, default=0.0))

    @property
    def excess(self) -> str:
        """What was said beyond all reason, as the end of a sentence about the worker; empty where nothing was."""
        if not any(meter.is_beyond_reason for pair in self._meters.values() for meter in pair):
            return ""
        messages, size = (sum(pair[place].total for pair in self._meters.values()) for place in (0, 1))
        lasted = seconds_text(self._clock() - self._began)
        return f"sent {messages:,.0f} messages, {size_text(size)}, in {lasted}: more than any training has to say"
