"""Ending a process that may still be saving: it is waited for while it makes progress, and killed when it does not."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from engine.process_stat import ProcessStat
from engine.run.processes.identity import ProcessIdentity

Ended = Literal["ended", "killed", "hangs"]

# A process that neither computes nor writes for so long is stuck: a disk or a GPU that answers at all answers sooner.
IDLE_SECONDS = 60.0
# One that computes but writes nothing may be in its last step or measuring. One that waits for a dead GPU spins too.
COMPUTING_SECONDS = 900.0
# The kernel ends what was killed within milliseconds, but for what hangs in a driver.
KILLED_SECONDS = 15.0
_LOOK_SECONDS = 0.25
# Hundredths of a second: threads that only look around, as a trainer's do, take less of the processor in a minute.
_LEAST_TICKS = 5


def end_process(
    process: ProcessIdentity,
    *,
    idle_seconds: float = IDLE_SECONDS,
    computing_seconds: float = COMPUTING_SECONDS,
) -> Ended:
    """Ask a process of ours to end, wait for as long as it works, and kill it then. hangs: not even that ended it."""
    if not process.send(signal.SIGTERM):
        return "ended"
    if wait_while_it_works(process, idle_seconds=idle_seconds, computing_seconds=computing_seconds):
        return "ended"
    process.send(signal.SIGKILL)
    return "killed" if process.wait(KILLED_SECONDS) else "hangs"


def end_together(processes: Sequence[ProcessIdentity], patience_seconds: float) -> list[ProcessIdentity]:
    """Ask processes of ours that save nothing to end, all at once, and kill those that have not in time; those that
    hang even then."""
    for number, seconds in ((signal.SIGTERM, patience_seconds), (signal.SIGKILL, KILLED_SECONDS)):
        processes = [each for each in processes if each.send(number)]
        deadline = time.monotonic() + seconds
        processes = [each for each in processes if not each.wait(max(0.0, deadline - time.monotonic()))]
    return list(processes)


def wait_while_it_works(
    process: ProcessIdentity,
    tell: Callable[[str], None] | None = None,
    *,
    idle_seconds: float = IDLE_SECONDS,
    computing_seconds: float = COMPUTING_SECONDS,
) -> bool:
    """Wait for a process of ours to end: for as long as it writes, `computing_seconds` while it only computes, and
    `idle_seconds` while it does neither. True once it has ended. `tell` is called once where that is not at once."""
    computed_at = wrote_at = time.monotonic()
    computed, written = _work_of(process.pid)
    while not process.wait(_LOOK_SECONDS):
        now = time.monotonic()
        newly_computed, newly_written = _work_of(process.pid)
        if newly_computed - computed >= _LEAST_TICKS:
            computed, computed_at = newly_computed, now
        if newly_written != written:
            written, wrote_at = newly_written, now
        if now - max(computed_at, wrote_at) > idle_seconds or now - wrote_at > computing_seconds:
            return False
        if tell is not None:
            tell(f"process {process.pid} still saves what it learnt …")
            tell = None
    return True


def _work_of(pid: int) -> tuple[int, int]:
    """Ticks of processor time that a process took, and bytes that it handed to the kernel to write; 0 for unknown."""
    try:
        ticks = ProcessStat.of(pid).computed_ticks
    except OSError:
        ticks = 0
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return ticks, 0
    # Both, since writing into mapped memory is no call, and a call into the cache writes nothing yet.
    return ticks, sum(int(line.split()[1]) for line in lines if line.startswith(("wchar:", "write_bytes:")))
