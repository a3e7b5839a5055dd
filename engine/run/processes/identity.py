"""Which process a number meant: pid, start time and boot, so that a recycled pid is never taken for ours."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process for all time. `start_time` is in clock ticks since the boot named by `boot_id`."""

    pid: int
    start_time: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The process that has `pid` now. Raises ProcessLookupError when there is none."""
        return cls(pid, _start_time(pid), _boot_id())

    @classmethod
    def from_dict(cls, values: Any) -> ProcessIdentity | None:
        """The identity that `as_dict` wrote; None for anything else."""
        try:
            return cls(int(values["pid"]), int(values["start_time"]), str(values["boot_id"]))
        except (KeyError, TypeError, ValueError):
            return None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def is_alive(self) -> bool:
        """Whether exactly this process still runs; one that has ended but was not yet waited for does not."""
        if (descriptor := self._open()) is None:
            return False
        os.close(descriptor)
        return True

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to this process and to no other; False when it has ended."""
        if (descriptor := self._open()) is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for this process to end; True once it has."""
        if (descriptor := self._open()) is None:
            return True
        try:
            return _readable(descriptor, seconds)
        finally:
            os.close(descriptor)

    def _open(self) -> int | None:
        """A pidfd of this process if it runs. The start time is compared after opening, when the pid is pinned."""
        if self.boot_id != _boot_id():
            return None
        try:
            descriptor = os.pidfd_open(self.pid)
        except (ProcessLookupError, ValueError):
            return None
        try:
            if _start_time(self.pid) == self.start_time and not _readable(descriptor, 0):
                return descriptor
        except ProcessLookupError:
            os.close(descriptor)
            return None
        os.close(descriptor)
        return None


def _readable(descriptor: int, seconds: float) -> bool:
    # poll and not select, since select refuses descriptors from 1024 on.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()


def _start_time(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    return int(stat.rpartition(")")[2].split()[19])  # the command's name, in brackets, may hold brackets itself
