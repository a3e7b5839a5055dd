"""How long another process has said nothing, without what a supervisor slept itself."""

from __future__ import annotations

import time
from collections.abc import Callable

# A supervisor looks once a second. After a longer gap it was kept from running itself, and others perhaps too.
_MOST_BETWEEN_LOOKS_SECONDS = 5.0


class Silence:
    """Begins when it is made. To be looked at about once a second: time between two looks counts for no more than a few
    seconds, so that a machine or a container that stood still makes nobody silent."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """`clock` stands still while the machine is suspended."""
        self._clock = clock
        self._seconds, self._looked_at = 0.0, clock()

    def seconds(self) -> float:
        """How long it has lasted."""
        now = self._clock()
        self._seconds += min(now - self._looked_at, _MOST_BETWEEN_LOOKS_SECONDS)
        self._looked_at = now
        return self._seconds

    def end(self) -> float:
        """Something was heard, and another one begins; how long this one lasted."""
        lasted, self._seconds = self.seconds(), 0.0
        return lasted
