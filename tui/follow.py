"""The one thread that reads journals and the hardware, and posts frozen snapshots to the app.

Nothing is read on the event loop, and nothing is posted that would look the same, so an idle screen costs no bytes.
A message replaces an older one of its kind that was not handled yet: a slow terminal never builds a queue.
What is read from is a `Source`; `EngineSource` is the real one, tests bring their own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from textual.message import Message

from profiles.problem import Problem, printable
from tui.run_words import held_word
from tui.snapshots import looks_different

if TYPE_CHECKING:
    from engine.run.directory import RunDirectory
    from engine.run.processes.orphans import Orphan
    from engine.run.summary import RunSummary
    from tui.snapshots import Machine, RunSnapshot


class Feed(Protocol):
    """One run, read again and again."""

    def read(self) -> RunSnapshot:
        """What is known now; the same object as before when nothing was written meanwhile."""


class Source(Protocol):
    """Where the follower reads from. Its methods run in the follower's thread and may block for a moment."""

    def runs(self) -> tuple[RunSummary, ...]:
        """All runs, newest first."""

    def machine(self) -> Machine: ...

    def orphans(self) -> tuple[Orphan, ...]:
        """Processes that runs left behind."""

    def follow(self, run: RunDirectory) -> Feed: ...


class _Replacing(Message):
    def can_replace(self, message: Message) -> bool:
        return type(message) is type(self)


class RunsRead(_Replacing):
    """The list of runs changed."""

    def __init__(self, runs: tuple[RunSummary, ...]):
        super().__init__()
        self.runs = runs


class MachineRead(_Replacing):
    """The hardware's numbers changed visibly."""

    def __init__(self, machine: Machine):
        super().__init__()
        self.machine = machine


class RunRead(_Replacing):
    """The followed run's journal or log grew, or it ended."""

    def __init__(self, snapshot: RunSnapshot):
        super().__init__()
        self.snapshot = snapshot


class OrphansRead(_Replacing):
    """Processes were found that runs left behind."""

    def __init__(self, orphans: tuple[Orphan, ...]):
        super().__init__()
        self.orphans = orphans


class ReadFailed(_Replacing):
    """Something could not be read; it is tried again. Empty `what` means that it works again."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what


class Follower(threading.Thread):
    """Reads from `source` and hands messages to `post` (thread-safe, such as App.post_message) until `close()`."""

    RUN_SECONDS = 0.5
    RUNS_SECONDS = 2.0
    RUNS_BELOW_SECONDS = 10.0
    """While one run is watched: only to call when another ends or stalls. Reading a hundred takes a moment."""
    MACHINE_SECONDS = 3.0
    ORPHANS_SECONDS = 600.0
    """Read at the start and then rarely: every process is looked at, and orphans come of rare accidents."""

    def __init__(self, source: Source, post: Callable[[Message], Any]):
        super().__init__(name="finetui-follow", daemon=True)
        self._source, self._post_to_app = source, post
        self._wake, self._closed = threading.Event(), False
        self._posting = threading.Lock()
        """So that nothing is posted once `close` has returned: the event loop may be gone by then."""
        self._target: RunDirectory | None = None
        self._feed: tuple[RunDirectory, Feed] | None = None
        self._home = True
        self._last: dict[str, Any] = {}
        self._failing: dict[str, str] = {}

    def watch_home(self) -> None:
        """Read the list of runs and the machine from now on, and no single run."""
        self._target, self._home = None, True
        self._wake.set()

    def watch_run(self, run: RunDirectory) -> None:
        """Read this one run from now on, the others now and then, and post it at once even if it did not change."""
        self._target, self._home = run, False
        self._last.pop("run", None)  # after that, or the thread might post the one before once more
        self._wake.set()

    def close(self) -> None:
        """Stop reading. The thread ends after what it reads now."""
        with self._posting:
            self._closed = True
        self._wake.set()

    def run(self) -> None:
        due = dict.fromkeys(("run", "runs", "machine"), 0.0)
        orphans_due = 0.0
        jobs = {
            "run": (self._read_run, self.RUN_SECONDS),
            "runs": (self._read_runs, self.RUNS_SECONDS),
            "machine": (self._read_machine, self.MACHINE_SECONDS),
        }
        while not self._closed:
            now = time.monotonic()
            if self._wake.is_set():
                self._wake.clear()
                due = dict.fromkeys(due, 0.0)
            names = ("runs", "machine") if self._home else ("run", "runs")
            for name in names:
                job, seconds = jobs[name]
                if now >= due[name] and not self._closed:
                    self._try(name, job)
                    slower = name == "runs" and not self._home
                    due[name] = time.monotonic() + (self.RUNS_BELOW_SECONDS if slower else seconds)
            if now >= orphans_due and not self._closed:  # last, so that what is in view comes first
                self._try("orphans", self._read_orphans)
                orphans_due = time.monotonic() + self.ORPHANS_SECONDS
            self._wake.wait(max(0.0, min(due[name] for name in names) - time.monotonic()))

    def _post(self, message: Message) -> None:
        with self._posting:
            if not self._closed:
                self._post_to_app(message)

    def _try(self, name: str, job: Callable[[], None]) -> None:
        """Do one reading. A failure is a state that is shown, never the end of the thread."""
        failure, fault = "", None
        try:
            job()
        except (Problem, OSError) as error:
            failure = str(error)
        except Exception as error:
            failure, fault = f"a fault of finetui's own, {type(error).__name__}: {printable(error, 200)}", error
        if failure == self._failing.get(name, ""):
            return
        self._failing[name] = failure
        if fault is not None:
            from tui.commands.faults import log_fault

            failure += f"; where it came up is in {log_fault(fault)}"
        self._post(ReadFailed(failure or next((each for each in self._failing.values() if each), "")))

    def _read_run(self) -> None:
        target = self._target
        if target is None:
            return
        if self._feed is None or self._feed[0] != target:
            self._feed = (target, self._source.follow(target))
        snapshot = self._feed[1].read()
        before = self._last.get("run")
        if self._target is target and snapshot != before:
            self._last["run"] = snapshot
            self._post(RunRead(snapshot))
            if before is not None and _newsworthy(before) != _newsworthy(snapshot):
                self._wake.set()  # the runs are read at once, too: it may be news

    def _read_runs(self) -> None:
        runs = self._source.runs()
        if runs != self._last.get("runs"):
            self._last["runs"] = runs
            self._post(RunsRead(runs))

    def _read_orphans(self) -> None:
        if orphans := self._source.orphans():
            self._post(OrphansRead(orphans))

    def _read_machine(self) -> None:
        machine = self._source.machine()
        if "machine" not in self._last or looks_different(self._last["machine"], machine):
            self._last["machine"] = machine
            self._post(MachineRead(machine))


def _newsworthy(snapshot: RunSnapshot) -> tuple[object, ...]:
    """What of a run may be news, where it changes."""
    state = snapshot.state
    return held_word(snapshot), snapshot.word, state.seal, state.seal_changed, len(state.ways_out)
