"""What runs left behind: processes of ours whose engine is gone, with the memory they hold, and runs that were cut off.

Only runs in this home are looked at: another home's are found by whoever uses that.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engine.process_stat import ProcessStat
from engine.run.directory import RunDirectory, list_runs, runs_root
from engine.run.liveness import is_interrupted, liveness
from engine.run.processes.ending import IDLE_SECONDS, KILLED_SECONDS, end_process
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.lock import lock_holder
from engine.run.processes.marked import SeenProcess, leads_session, own_processes
from engine.run.sizes import size_text
from engine.run.telemetry.journal import last_event

Role = Literal["supervisor", "worker", "child"]

_SUPERVISOR_MODULE = b"engine.run.supervisor"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Orphan:
    """A process of a run that no engine looks after. `held_bytes` are those of `device` ("GPU 0", "RAM"), with those of
    its `children`; None where the driver does not say. The run's folder may be gone."""

    run: RunDirectory
    identity: ProcessIdentity
    role: Role
    held_bytes: int | None
    device: str
    children: tuple[ProcessIdentity, ...] = ()

    def sentence(self) -> str:
        """What it is and what it holds."""
        what = {"supervisor": "the engine", "worker": "the trainer", "child": "a helper of the trainer"}[self.role]
        held = f"holds {size_text(self.held_bytes)}" if self.held_bytes is not None else "holds memory"
        gone = "" if self.run.spec_path.is_file() else ", whose folder is gone"
        return f"process {self.identity.pid}, {what} of {self.run.name}{gone}, {held} of {self.device}"

    def end(self, idle_seconds: float = IDLE_SECONDS) -> str:
        """End it: a trainer that still saves may finish that, however long it takes; one that does nothing for
        `idle_seconds` is killed. What became of it, as a sentence."""
        ended = end_process(self.identity, idle_seconds=idle_seconds)
        for child in self.children:
            child.send(signal.SIGKILL)
            child.wait(KILLED_SECONDS)
        who = f"Process {self.identity.pid} of {self.run.name}"
        if ended == "hangs":
            return f"{who} does not end even when killed; it hangs in a driver. Restarting the machine ends it."
        return f"{who} {'was killed' if ended == 'killed' else 'has ended'}."


def find_orphans() -> list[Orphan]:
    """The processes of this user's runs that no engine looks after, those that hold most first. Reads every process of
    this user, in some milliseconds; the GPUs only where one was found. Raises Problem for the folder of runs."""
    found = [orphan for orphan in map(_orphan, own_processes()) if orphan is not None]
    if not found:
        return []
    looked_after = {orphan.identity.pid for orphan in found if orphan.role != "child"}
    children: dict[int, list[Orphan]] = {}
    for orphan in found:
        if orphan.role == "child" and (leader := _leader(orphan.identity.pid, looked_after)) is not None:
            children.setdefault(leader, []).append(orphan)
    folded = {child.identity for group in children.values() for child in group}
    whole = [
        replace(each, children=tuple(child.identity for child in children.get(each.identity.pid, ())))
        for each in found
        if each.identity not in folded
    ]
    on_gpus = _gpu_bytes()
    measured = [_measured(each, on_gpus) for each in whole]
    return sorted(measured, key=lambda orphan: (orphan.device == "RAM", -(orphan.held_bytes or 0)))


def interrupted_runs() -> list[RunDirectory]:
    """The runs that nobody meant to end, newest first. Raises Problem for the folder of runs."""
    found = []
    for run in list_runs():
        with suppress(OSError):  # a folder that cannot be read is told by the list of runs
            life = liveness(run)
            last = last_event(run.events_path) if life == "ended" else None
            if is_interrupted(life, last is not None and last.get("by_signal") is True):
                found.append(run)
    return found


def _orphan(seen: SeenProcess) -> Orphan | None:
    """The process as an orphan, not measured yet; None when it is none."""
    supervisor = _SUPERVISOR_MODULE in seen.command
    path = _argument_after(seen.command, _SUPERVISOR_MODULE) if supervisor else seen.run_path
    if path is None or path.parent.resolve() != runs_root().resolve():
        return None
    run = RunDirectory(path)
    if supervisor:
        # One whose folder is there holds its lock, or is about to take it or to be refused.
        return None if run.path.is_dir() else Orphan(run, seen.identity, "supervisor", None, "RAM")
    with suppress(OSError):
        if lock_holder(run.lock_path) is not None:
            return None
    if not seen.identity.is_alive():
        return None
    role: Role = "worker" if leads_session(seen.identity.pid) else "child"
    return Orphan(run, seen.identity, role, None, "RAM")


def _measured(orphan: Orphan, on_gpus: dict[int, tuple[str, int | None]]) -> Orphan:
    pids = [orphan.identity.pid, *(child.pid for child in orphan.children)]
    held = [on_gpus[pid] for pid in pids if pid in on_gpus]
    if not held:
        return replace(orphan, held_bytes=sum(map(_resident_bytes, pids)))
    known = [size for _, size in held if size is not None]
    names = ", ".join(dict.fromkeys(name for name, _ in held))
    return replace(orphan, held_bytes=sum(known) if known else None, device=names)


def _gpu_bytes() -> dict[int, tuple[str, int | None]]:
    """By the pids on any GPU, hidden from CUDA or not: which GPUs, and the bytes held on them."""
    from profiles.machine.host import HostFiles, read_ram
    from profiles.machine.nvml import Nvml

    library = Nvml(environment={})
    found: dict[int, tuple[str, int | None]] = {}
    try:
        for gpu in library.gpus(read_ram(HostFiles())):
            for process in gpu.processes:
                names, held = found.get(process.pid, ("", 0))
                total = None if held is None or process.bytes is None else held + process.bytes
                found[process.pid] = (f"{names}, GPU {gpu.index}".removeprefix(", "), total)
    finally:
        library.close()
    return found


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _leader(pid: int, among: set[int]) -> int | None:
    """Which of `among` leads the session of a process, or is its parent: whoever its end will be left to."""
    try:
        stat = ProcessStat.of(pid)
    except OSError:
        return None
    return next((number for number in (stat.session, stat.parent) if number in among), None)


def _argument_after(command: tuple[bytes, ...], name: bytes) -> Path | None:
    after = command[command.index(name) + 1 :]
    return Path(os.fsdecode(after[0])) if after else None
