"""Which process a number meant: pid, start time, boot and namespace, so that a recycled pid is never taken for ours.

A number names a process only within one boot of one machine and one pid namespace. A run's folder may be on a disk that
several machines or containers share; containers of one machine have its boot id in common, and two that were made alike
can have the same number at the same tick. So what was written elsewhere counts here as ended: it is never signalled.
Whether the run lives there all the same is told by its lock (see lock.py).
"""

from __future__ import annotations

import errno
import os
import select
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.process_stat import ProcessStat

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
# The kernel gives out numbers below this; far less in most settings.
_MOST_PIDS = 1 << 22
# There is none, or the number is a thread's by now: kernels differ in how they say it.
_NO_PROCESS = (errno.ESRCH, errno.EINVAL, errno.ENOENT)


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process for all time. `start_time` is in clock ticks since the boot named by `boot_id`; `namespace` is the
    inode number of the pid namespace in which `pid` counts, 0 where that is not known."""

    pid: int
    start_time: int
    boot_id: str
    namespace: int = 0

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The process that has `pid` now. Raises ProcessLookupError when there is none."""
        return cls(pid, ProcessStat.of(pid).start_time, boot_id(), _namespace())

    @classmethod
    def from_dict(cls, values: Any) -> ProcessIdentity | None:
        """The identity that `as_dict` wrote; None for anything else."""
        try:
            numbers = int(values["pid"]), int(values["start_time"]), int(values.get("namespace", 0))
            identity = cls(numbers[0], numbers[1], str(values["boot_id"]), numbers[2])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None
        return identity if 0 < identity.pid <= _MOST_PIDS else None

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
        """A pidfd of this process if it runs. The start time is compared after opening: the descriptor stays with the
        process that it was opened for, whoever gets the number next."""
        if self.boot_id != boot_id() or self.namespace not in (0, _namespace()):
            return None
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError as error:
            if error.errno in _NO_PROCESS:
                return None
            raise
        try:
            if ProcessStat.of(self.pid).start_time == self.start_time and not _readable(descriptor, 0):
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


def boot_id() -> str:
    """What names this boot of this machine; containers on it have the same."""
    return _BOOT_ID.read_text().strip()


def _namespace() -> int:
    try:
        return _NAMESPACE.stat().st_ino
    except OSError:  # a kernel without namespaces
        return 0
