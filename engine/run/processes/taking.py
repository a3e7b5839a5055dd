"""How a supervisor takes a run into its hands: the lock, what an earlier one left running, where it stands, signals."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

from engine.run.directory import RunDirectory
from engine.run.processes.ending import end_process, end_together, wait_while_it_works
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.lock import lock_holder, take_lock
from engine.run.processes.marked import leads_session, mark_as_of, own_processes
from engine.run.processes.recorded import recorded_processes
from profiles.problem import Problem

# Whoever resumes a run has waited for its last worker before, and waits for the engine for two minutes at most.
_IDLE_SECONDS, _COMPUTING_SECONDS = 30.0, 60.0
# Helpers have nothing to save, but some a folder to tidy up.
_HELPERS_SECONDS = 5.0

START_NOTE_VARIABLE = "FINETUI_START_NOTE"
"""The environment variable with what did not go as planned when the engine was started, for its journal."""


ASKED_SIGNAL = signal.SIGINT
"""By which a person's own stop reaches an engine that has no socket: shutdowns and batch systems send SIGTERM."""


def take_run(run: RunDirectory) -> int:
    """Lock the run for this process; the descriptor to keep. Raises Problem when another holds it."""
    try:
        lock = take_lock(run.lock_path)
    except BlockingIOError:
        holder = lock_holder(run.lock_path)
        who = f"process {holder}" if holder and holder > 0 else "another machine or container"
        raise Problem(run.name, f"is already in the hands of {who}", f"Watch it: `finetui watch {run.name}`.") from None
    mark_as_of(run)
    return lock


def wait_for_orphan(run: RunDirectory, tell: Callable[[str], None] | None = None) -> None:
    """Wait until a worker has ended whose engine was killed: it saves what it learnt, which may take minutes. Returns
    also when it does nothing any more. `tell` is called with a few words when it takes longer than a moment.

    Signals nothing: who does not hold the run's lock may be looking at the worker of an engine that just started."""
    worker = recorded_processes(run).get("worker")
    if worker is not None and lock_holder(run.lock_path) is None:
        wait_while_it_works(worker, tell)


def end_orphan(run: RunDirectory) -> None:
    """End what an engine left that was killed: two workers must not write one run's checkpoints. Only for who holds
    the run's lock. Raises Problem when something cannot be ended."""
    worker = recorded_processes(run).get("worker")
    # The worker first, which ends its helpers; then what is not written down: a worker whose supervisor was killed
    # before it wrote, and helpers that were left.
    unwritten = [seen.identity for seen in own_processes() if seen.belongs_to(run) and seen.identity != worker]
    workers = [each for each in unwritten if leads_session(each.pid)]
    for process in [worker, *workers] if worker is not None else workers:
        if end_process(process, idle_seconds=_IDLE_SECONDS, computing_seconds=_COMPUTING_SECONDS) == "hangs":
            raise _hangs(run, process)
    for process in end_together([each for each in unwritten if each not in workers], _HELPERS_SECONDS):
        raise _hangs(run, process)


def _hangs(run: RunDirectory, process: ProcessIdentity) -> Problem:
    fix = "It hangs in the kernel, perhaps in a driver; restart the machine if it stays."
    return Problem(run.name, f"process {process.pid} of its last start does not end even when killed", fix)


def start_note() -> str | None:
    """What whoever started this engine has to say for the journal; gone from the environment then."""
    return os.environ.pop(START_NOTE_VARIABLE, None) or None


def catch_signals() -> socket.socket:
    """From now on SIGTERM, SIGINT, and SIGXCPU of a limit on processor time only make the returned socket readable: it
    gives a byte with the number for each."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())  # first, since one that only met its handler would be lost
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
        signal.signal(number, lambda *_: None)
    return reader
