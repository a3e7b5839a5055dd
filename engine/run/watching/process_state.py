"""What the kernel says a process is doing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from engine.process_stat import ProcessStat

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessState:
    """A process at one moment. `state` is the kernel's letter for its main thread, "" once the process is gone;
    `cpu_seconds` is what all its threads used so far, `waits_in` the kernel's function that its main thread waits
    in, "" where it does not wait or may not be asked."""

    pid: int
    state: str
    cpu_seconds: float
    waits_in: str

    @classmethod
    def of(cls, pid: int) -> ProcessState:
        try:
            stat = ProcessStat.of(pid)
        except OSError:
            return cls(pid, "", 0.0, "")
        return cls(pid, stat.state, stat.computed_ticks / _TICKS_PER_SECOND, _waits_in(pid))

    @property
    def is_suspended(self) -> bool:
        """Whether somebody stopped it, so that it cannot even answer a signal."""
        return self.state in ("T", "t")


def doing_text(now: ProcessState, before: ProcessState, seconds: float) -> str:
    """What a process does, as the end of "its process ...", from two looks at it that are `seconds` apart."""
    if now.state in ("", "Z", "X"):
        return "has ended"
    if now.state == "T":
        return f"is suspended (`kill -CONT {now.pid}` lets it go on)"
    if now.state == "t":
        return "is held by a debugger"
    if now.state == before.state == "D":
        where = f" ({now.waits_in})" if now.waits_in else ""
        return f"waits in the kernel, for a disk or a driver{where}"
    share = (now.cpu_seconds - before.cpu_seconds) / seconds if seconds > 0 else 0.0
    # A thread that looks every now and then whether something has come uses a few hundredths of a processor; one that
    # wants to go on uses as little where others leave it no more.
    if share < 0.1 and not now.state == before.state == "R":
        return "waits, and uses no processor time"
    return f"is busy, on {share:.1f} processors"


def _waits_in(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/wchan").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
    return "" if name == "0" else name
