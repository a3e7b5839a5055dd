"""The seal of one worker while it lives: what holds is told when it starts, read again from the kernel's own files at
checkpoints, at most once a second, and at the end, and what tries to get out is counted."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from dataclasses import replace

from engine.run.processes.worker_process import WorkerProcess
from engine.run.sealing.trial import Prepared
from engine.run.sealing.ways_out import WaysOut, process_name
from engine.run.sealing.words import names, seal_text
from engine.run.telemetry.recording import Recording
from engine.seal.proof.evidence import Evidence
from engine.seal.proof.kernel_word import NO_ROUTE_COUNTERS, NetworkFiles, evidence
from engine.seal.proof.refusals import MOST_TRIES

# Asking takes some milliseconds and two lines on the disk. A run that saves after each step would ask all the time.
_BETWEEN_SECONDS = 1.0


class SealWatch:
    """For one attempt. `fault` is what was found not to be as it should, as a sentence; empty where nothing was."""

    def __init__(
        self,
        recording: Recording,
        worker: WorkerProcess,
        prepared: Prepared,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Of a worker that was started as `prepared`."""
        self._recording, self._pid, self._prepared, self._report = recording, worker.pid, prepared, worker.seal
        self._refusals, self._guards = worker.seal_lines.refusals, worker.seal_lines.guards
        self._selector: selectors.BaseSelector | None = None
        self._ways_out = WaysOut()
        self._network = NetworkFiles(worker.pid) if worker.seal.held else None
        self._first: Evidence | None = None
        self._alive: Evidence | None = None
        self._unrouted = 0
        self._overrun_told = False
        self._clock = clock
        self._checked_at = self._alive_at = -_BETWEEN_SECONDS
        self._unchecked: tuple[int | None] | None = None
        """The step of a checkpoint since which the kernel was not asked."""
        self.fault = ""

    def begin(self, number: int) -> None:
        """Journal what holds for the worker of attempt `number`, which has just begun."""
        self._take_refusals()  # by now the kernel's listener has come
        report = self._report
        first = self._first = evidence(self._pid, self._network) if report.held or report.inherited else None
        changed = first.doubts(report.held) if first is not None else []
        self._find(changed)
        self._unrouted = _unrouted(first)
        self._recording.add(
            "seal",
            number=number,
            level=report.level,
            layers=report.as_dict()["layers"],
            milliseconds=report.milliseconds,
            probes=self._prepared.probes,
            evidence=first.as_dict() if first is not None else {},
            changed=changed,
            text=seal_text(report, self._prepared, changed),
        )
        if broken := (self._prepared.probes or {}).get("broken"):
            text = f"the seal keeps from work what it needs: {names(broken)}; something may fail for that"
            self._recording.add("note", text=text)

    def check(self, step: int | None) -> None:
        """Ask the kernel again, at a checkpoint: at once, or, where that was done within the last second, when it is
        over, for the newest checkpoint by then (see `look`)."""
        if self._first is not None:
            self._unchecked = (step,)
            self._check_where_due()

    def last_word(self) -> None:
        """The worker has said how it ends, and may still be there to be read. Who says so again and again is read once
        a second."""
        if self._first is not None and (self._alive is None or self._clock() - self._alive_at >= _BETWEEN_SECONDS):
            self._alive, self._alive_at = evidence(self._pid, self._network), self._clock()

    def end(self, step: int | None) -> None:
        """The worker has ended, and was not waited for: what the kernel still says, all that was ever sent in its
        network included."""
        self._take_refusals()
        self._take_guards()
        if self._first is not None:
            now = evidence(self._pid, self._network)
            if (alive := self._alive) is not None and not alive.unread:
                # What it was in and what belonged to it ends with a process.
                now = replace(
                    now,
                    namespaces=alive.namespaces,
                    processes=alive.processes,
                    strays=alive.strays,
                    unread=(),
                )
            self._tell("end", step, now)
        self.look(everything=True)
        if self._network is not None:
            self._network.close()

    def look(self, *, everything: bool = False) -> None:
        """Journal what tried to get out, if there is anything, and ask the kernel where a checkpoint waits for that; to
        be called about once a second."""
        if not everything:
            self._check_where_due()
        for fields in self._ways_out.due(everything=everything):
            self._recording.add("way_out", **fields)
        if self._refusals.overrun and not self._overrun_told:
            self._overrun_told = True
            text = f"after {MOST_TRIES:,} refused calls the kernel refuses the next by itself, and nobody counts them"
            self._recording.add("note", text=text)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Have what tries to get out heard by the supervisor's loop."""
        self._selector = selector
        for source, take in ((self._refusals, self._take_refusals), (self._guards, self._take_guards)):
            if source.fileno() >= 0:
                selector.register(source.fileno(), selectors.EVENT_READ, take)

    def unregister(self) -> None:
        selector, self._selector = self._selector, None
        for source in (self._refusals, self._guards):
            if selector is not None and source.fileno() >= 0:
                selector.unregister(source.fileno())

    def _take_refusals(self) -> None:
        before = self._refusals.fileno()
        for tried in self._refusals.take():
            self._ways_out.add(tried.what, "", tried.process, tried.pid, tried.count)
        self._let_go(before, self._refusals.fileno())
        self.look()

    def _take_guards(self) -> None:
        before = self._guards.fileno()
        for what, where, pid in self._guards.take():
            self._ways_out.add(what, where, process_name(pid), pid)
        self._let_go(before, self._guards.fileno())
        self.look()

    def _let_go(self, before: int, now: int) -> None:
        """No longer wait for a descriptor that was closed."""
        if now != before and self._selector is not None:
            self._selector.unregister(before)

    def _check_where_due(self) -> None:
        if self._unchecked is not None and self._clock() - self._checked_at >= _BETWEEN_SECONDS:
            (step,), self._unchecked = self._unchecked, None
            self._checked_at = self._clock()
            self._tell("checkpoint", step, evidence(self._pid, self._network))

    def _tell(self, when: str, step: int | None, now: Evidence) -> None:
        assert self._first is not None
        changed = now.changed_since(self._first)
        self._find(changed)
        # What a loopback's sockets were to send elsewhere found no route, and was counted by the kernel.
        unrouted = _unrouted(now) - self._unrouted
        if unrouted > 0:
            self._unrouted += unrouted
            self._ways_out.add("packets to where no route leads", "", "", self._pid, unrouted)
        self._recording.add("seal_check", when=when, step=step, evidence=now.as_dict(), changed=changed)

    def _find(self, changed: list[str]) -> None:
        if changed and not self.fault:
            self.fault = changed[0]


def _unrouted(now: Evidence | None) -> int:
    return sum(now.counters.get(name, 0) for name in NO_ROUTE_COUNTERS) if now is not None else 0
