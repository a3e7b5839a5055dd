"""Hearing, beside whatever else is done, what tries to get out of one sealed child: for all that have no journal and no
loop of a supervisor's."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from engine.modules import module_environment
from engine.run.sealing.lines import SealLines
from engine.run.sealing.ways_out import process_name
from engine.seal.group import GroupProcess
from engine.seal.policy.places import Places
from engine.seal.report import SealReport
from engine.seal.request import Level
from engine.seal.sealing import start_sealed
from profiles.problem import Problem, printable

# Of different tries the first are kept; further ones count.
_MOST_KEPT = 10
_CHARACTERS = 200


class Hearing:
    """What one child tried, and all that it started: `start` it once, and `close` this when it has ended. Whatever was
    tried before one of these is asked for is in the answer."""

    def __init__(self, who: str = "It") -> None:
        """Hears from now on, since the kernel has a try wait for its answer. `who` is the child, as the beginning of a
        sentence. Raises OSError."""
        self._who = who
        self._lines = SealLines()
        self._changing = threading.Lock()
        self._count = self._told = 0
        self._kept: list[str] = []
        self._newest = ""
        self._asked: deque[threading.Event] = deque()
        self._over = self._ended = False
        self._woken, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._hear, name="ways out", daemon=True)
        self._thread.start()

    def start(
        self,
        command: Sequence[str],
        places: Places,
        level: Level,
        *,
        env: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> tuple[GroupProcess, SealReport]:
        """As `start_sealed`; where that raises something, nothing more is heard."""
        lines = self._lines
        try:
            started = start_sealed(
                command,
                places,
                level,
                pass_fds=[lines.guard_descriptor],
                refusals=lines.refusals_descriptor,
                env={**(module_environment() if env is None else env), **lines.variables},
                **popen,
            )
        except BaseException:
            self.close()
            raise
        lines.started()
        return started

    @property
    def count(self) -> int:
        """Of all tries."""
        self._catch_up()
        return self._count

    def facts(self) -> dict[str, Any]:
        """For the audit log: how many, and the first of them in words."""
        self._catch_up()
        with self._changing:
            return {"count": self._count, "tried": list(self._kept)}

    def told(self) -> str:
        """All that was tried, as a sentence without its full stop; empty where nothing was."""
        self._catch_up()
        with self._changing:
            return self._sentence(self._count)

    def news(self) -> str:
        """As `told`, since this was last asked."""
        self._catch_up()
        with self._changing:
            more, self._told = self._count - self._told, self._count
            return self._sentence(more)

    def beside(self, problem: Problem) -> Problem:
        """The problem, with what was tried."""
        told = self.told()
        return Problem(problem.where, f"{problem.what}; {told}", problem.fix) if told else problem

    def close(self) -> None:
        """Hear no more; what the child told before it ended is heard first. May be called twice."""
        self._over = True
        self._wake()
        self._thread.join()

    def _sentence(self, count: int) -> str:
        if not count:
            return ""
        often = {1: "once", 2: "twice"}.get(count, f"{count:,} times")
        return f"{self._who} tried to reach a network {often}, and was refused: {self._newest}"

    def _catch_up(self) -> None:
        """Return when all that was told by now is counted."""
        done = threading.Event()
        self._asked.append(done)
        if self._wake():
            done.wait()

    def _wake(self) -> bool:
        """Whether there was somebody to wake."""
        with self._changing:
            if not self._ended:
                os.write(self._waker, b".")
            return not self._ended

    def _hear(self) -> None:
        """Until this is closed, or nobody is left who could try."""
        over = False
        while True:
            if not over:
                self._wait()
            over = over or self._over  # and what was told before that is taken below
            asked = len(self._asked)
            heard = self._take()
            self._answer(asked)
            if not heard and (over or self._is_alone()):
                break
        with self._changing:
            self._ended = True
            self._lines.close()
            os.close(self._woken)
            os.close(self._waker)
        self._answer(len(self._asked))

    def _answer(self, asked: int) -> None:
        for _ in range(asked):
            self._asked.popleft().set()

    def _is_alone(self) -> bool:
        return self._lines.guards.fileno() < 0 and self._lines.refusals.fileno() < 0

    def _wait(self) -> None:
        poll = select.poll()
        for descriptor in (self._lines.guards.fileno(), self._lines.refusals.fileno(), self._woken):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        if any(descriptor == self._woken for descriptor, _ in poll.poll()):
            os.read(self._woken, 1 << 12)

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
