"""The follower's real source: run folders and this machine. All of it may block; never call it on the event loop."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import psutil

from engine.run.directory import RunDirectory, runs_root
from engine.run.liveness import liveness
from engine.run.processes.orphans import Orphan, find_orphans
from engine.run.processes.recorded import recorded_processes
from engine.run.summary import RunSummary, ending_of, summaries
from engine.run.telemetry.log import last_lines
from engine.run.telemetry.reading import FollowedRun
from profiles.hardware import Hardware, HostFiles, probe
from profiles.machine.host import read_disk, read_ram
from profiles.machine.nvml import Nvml
from profiles.problem import Problem, printable
from tui.snapshots import Machine, MemoryUser, RunSnapshot

if TYPE_CHECKING:
    from engine.seal.ability import Ability
    from engine.spec import RunSpec

LOG_LINES = 400
MOST_USERS = 3
LEAST_USE_SHARE = 0.01
"""Of the RAM; a process below that is not named."""
SLICE_BYTES = 1 << 22
# last_lines shows an escape character as this text; colours are no part of what a log says.
_ESCAPES = re.compile(r"\\x1b(?:\[[0-?]*[ -/]*[@-~]|\].*?(?:\\x07|\\x1b\\\\)|[@-Z_])")


class EngineSource:
    """Reads what the engine wrote, and the machine it runs on."""

    def __init__(self) -> None:
        self._live: tuple[RunDirectory, ...] = ()
        self._machine: MachineReader | None = None

    def runs(self) -> tuple[RunSummary, ...]:
        found = tuple(summaries())
        self._live = tuple(RunDirectory(run.path) for run in found if run.state in ("running", "preparing", "queued"))
        return found

    def machine(self) -> Machine:
        if self._machine is None:
            self._machine = MachineReader()
        return self._machine.read(worker_names(self._live))

    def orphans(self) -> tuple[Orphan, ...]:
        return tuple(find_orphans())

    def follow(self, run: RunDirectory) -> EngineFeed:
        return EngineFeed(run)


class EngineFeed:
    """One run's folder: its journal from where it was read to, its log when that changed, and whether it lives."""

    def __init__(self, run: RunDirectory):
        self._run = run
        self._followed = FollowedRun(run)
        self._log_mark: tuple[int, int] | None = None
        self._snapshot: RunSnapshot | None = None
        self._spec: RunSpec | None = None
        self._trouble = ""
        try:
            self._spec = run.spec()
        except Problem as problem:
            self._trouble = f"{problem.where}: {problem.what}"

    def read(self) -> RunSnapshot:
        """The run now; the very same snapshot as before when nothing changed. Raises OSError."""
        # Whether it lives comes first: an engine writes the end before it lets go of its lock.
        alive = liveness(self._run)
        grown = self._followed.catch_up(SLICE_BYTES)
        log_mark = _mark(self._run)
        last = self._snapshot
        if last is not None and not grown and alive == last.liveness and log_mark == self._log_mark:
            return last
        log = last.log if last is not None and log_mark == self._log_mark else log_lines(self._run)
        self._log_mark = log_mark
        state = self._followed.state()
        ending = ending_of(self._run, alive, state)
        self._snapshot = RunSnapshot(self._run, state, alive, self._spec, log, self._trouble, ending)
        return self._snapshot


class MachineReader:
    """The machine's hardware, and who takes its memory. The driver is opened once."""

    def __init__(self) -> None:
        self._whole: Hardware = probe(runs_root())
        self._files = HostFiles()
        self._nvml = Nvml()
        self._reads = 0
        self._seal: Ability | None = None

    def read(self, our_pids: Mapping[int, str]) -> Machine:
        """The machine now; `our_pids` names the run of each of our worker processes."""
        ram = read_ram(self._files)
        gpus = tuple(self._nvml.gpus(ram))
        try:
            disk = read_disk(runs_root())
        except OSError:
            disk = self._whole.disk  # its note is in the whole reading already
        hardware = dataclasses.replace(self._whole, ram=ram, gpus=gpus, disk=disk)
        self._reads += 1
        if self._reads == 2:  # trying what can be sealed takes a child; the numbers come first
            self._seal = seal_ability()
        return Machine(hardware, memory_users(our_pids, ram.total_bytes), frozenset(our_pids), self._seal)


def seal_ability() -> Ability:
    """What this machine can hold of a seal, tried in a child process. May take a moment."""
    from engine.seal.ability import ability

    return ability()


def memory_users(our_pids: Mapping[int, str], total_bytes: int) -> tuple[MemoryUser, ...]:
    """Our runs, then the programs that take most RAM of their own (memory shared with others is not counted)."""
    own_bytes: Counter[tuple[bool, str, str]] = Counter()
    for process in psutil.process_iter(["name", "username", "memory_info"]):
        memory = process.info["memory_info"]
        if memory is None:
            continue  # a process of another person on a machine that hides them
        ours = process.pid in our_pids
        name = our_pids.get(process.pid) or process.info["name"] or "?"
        key = (ours, printable(name, 24), printable(process.info["username"] or "?", 16))
        own_bytes[key] += max(0, memory.rss - getattr(memory, "shared", 0))
    named = [
        MemoryUser(name, user, size, ours)
        for (ours, name, user), size in own_bytes.most_common()
        if ours or size > total_bytes * LEAST_USE_SHARE
    ]
    return tuple(sorted(named, key=lambda user: not user.ours)[:MOST_USERS])


def worker_names(runs: Sequence[RunDirectory]) -> dict[int, str]:
    """The name of the run of each worker process that is recorded for `runs`."""
    workers = ((recorded_processes(run).get("worker"), run) for run in runs)
    return {worker.pid: run.spec_name for worker, run in workers if worker is not None}


def log_lines(run: RunDirectory) -> tuple[str, ...]:
    """The last lines of a run's engine.log as plain text. Raises OSError."""
    return tuple(_ESCAPES.sub("", line) for line in last_lines(run.log_path, LOG_LINES))


def _mark(run: RunDirectory) -> tuple[int, int] | None:
    try:
        status = run.log_path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns
