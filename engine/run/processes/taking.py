"""How a supervisor takes a run into its hands: the lock, what an earlier one left running, where it stands, signals."""

from __future__ import annotations

import re
import signal
import socket

from engine.run.directory import RunDirectory
from engine.run.processes.lock import lock_holder, take_lock
from engine.run.processes.recorded import recorded_processes
from profiles.problem import Problem

# A worker whose supervisor was killed saves and ends by itself; one that takes longer than this is ended.
_ORPHAN_SECONDS = 60.0


def take_run(run: RunDirectory) -> int:
    """Lock the run for this process; the descriptor to keep. Raises Problem when another holds it."""
    try:
        return take_lock(run.lock_path)
    except BlockingIOError:
        holder = lock_holder(run.lock_path)
        who = f"process {holder}" if holder and holder > 0 else "another machine or container"
        raise Problem(run.name, f"is already in the hands of {who}", f"Watch it: `finetui watch {run.name}`.") from None


def end_orphan(run: RunDirectory) -> None:
    """Wait until a worker is gone whose supervisor was killed: two workers must not write one run's checkpoints."""
    worker = recorded_processes(run).get("worker")
    if worker is None or not worker.send(signal.SIGTERM) or worker.wait(_ORPHAN_SECONDS):
        return
    worker.send(signal.SIGKILL)
    if not worker.wait(_ORPHAN_SECONDS / 4):
        fix = "It hangs in the kernel, perhaps in a driver; restart the machine if it stays."
        raise Problem(run.name, f"its last worker, process {worker.pid}, does not end even when killed", fix)


def newest_checkpoint_step(run: RunDirectory) -> int | None:
    """The step of the newest checkpoint, which the worker will try first; None when there is none."""
    try:
        names = [entry.name for entry in run.checkpoints.iterdir()]
    except FileNotFoundError:
        return None
    return max((int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)", name))), default=None)


def catch_signals() -> socket.socket:
    """From now on SIGTERM and SIGINT only make the returned socket readable."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer.detach())
    return reader
