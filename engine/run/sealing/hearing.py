"""Hearing, beside whatever else is done, what tries to get out of one sealed child: for a chat and an export, which
have no journal and no loop of a supervisor's."""

from __future__ import annotations

import os
import select
import threading
from typing import Any

from engine.run.sealing.lines import SealLines
from engine.run.sealing.ways_out import process_name
from profiles.problem import printable

# Of different tries the first are kept; further ones count.
_MOST_KEPT = 10
_CHARACTERS = 200


class Hearing:
    """What one child tried. Give `start_sealed` its descriptors and variables, say `started`, and `close` it."""

    def __init__(self) -> None:
        """Hears from now on, since the kernel has a try wait for its answer. Raises OSError."""
        self._lines = SealLines()
        self._changing = threading.Lock()
        self._count = self._told = 0
        self._kept: list[str] = []
        self._newest = ""
        self._over_reader, self._over = os.pipe()
        self._closed = False
        self._thread = threading.Thread(target=self._hear, name="ways out", daemon=True)
        self._thread.start()

    @property
    def variables(self) -> dict[str, str]:
        """For the child's environment, where it is sealed."""
        return self._lines.variables

    @property
    def guard_descriptor(self) -> int:
        """For the child to keep."""
        return self._lines.guard_descriptor

    @property
    def refusals_descriptor(self) -> int:
        """The `refusals` of a SealRequest."""
        return self._lines.refusals_descriptor

    def started(self) -> None:
        """The child has its ends, or there is none."""
        self._lines.started()

    @property
    def count(self) -> int:
        """Of all tries so far."""
        return self._count

    def facts(self) -> dict[str, Any]:
        """For the audit log: how many, and the first of them in words."""
        with self._changing:
            return {"count": self._count, "tried": list(self._kept)}

    def news(self) -> str:
        """What was tried since this was last asked, as a sentence; empty where nothing was."""
        with self._changing:
            more, self._told = self._count - self._told, self._count
            newest = self._newest
        if not more:
            return ""
        often = {1: "once", 2: "twice"}.get(more, f"{more:,} times")
        return f"It tried to reach a network {often}, and was refused: {newest}"

    def close(self) -> None:
        """Hear no more; what the child told before it ended is heard first. May be called twice."""
        if self._closed:
            return
        self._closed = True
        os.close(self._over)
        self._thread.join()
        os.close(self._over_reader)
        self._lines.close()

    def _hear(self) -> None:
        over = False
        while True:
            poll = select.poll()
            for descriptor in (self._lines.guards.fileno(), self._lines.refusals.fileno(), self._over_reader):
                if descriptor >= 0:
                    poll.register(descriptor, select.POLLIN)
            ready = [descriptor for descriptor, _ in poll.poll()]
            over = over or self._over_reader in ready
            heard = self._take()
            if over and not heard:
                return

    def _take(self) -> bool:
        """Whether there was something."""
        tries = [(what, where, process_name(pid), 1) for what, where, pid in self._lines.guards.take()]
        tries += [(tried.what, "", tried.process, tried.count) for tried in self._lines.refusals.take()]
        with self._changing:
            for what, where, process, count in tries:
                self._count += count
                words = f"{what}, in {where}" if where else f"{what}, by {process or 'a process'}"
                self._newest = words = printable(words, _CHARACTERS)
                if words not in self._kept and len(self._kept) < _MOST_KEPT:
                    self._kept.append(words)
        return bool(tries)
