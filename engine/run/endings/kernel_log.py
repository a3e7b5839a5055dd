"""What the kernel's log says of the GPU while a worker lives, where it may be read (kernel.dmesg_restrict=0, or root).

The driver numbers its messages: Xid 79 is a GPU that fell off the bus. https://docs.nvidia.com/deploy/xid-errors
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from engine.run.endings.causes import Cause, Ending
from profiles.problem import printable

_KERNEL_LOG = Path("/dev/kmsg")
_XID = re.compile(rb"NVRM: Xid \([^)]*\): (\d+), *(?:pid=(\d+)|pid=[^,]*)?(?:, *name=[^,]*)?,? *([^\n]*)")
# 48, 95 and 140: memory errors that could not be corrected or kept to one process. 79: off the bus.
_LOST = frozenset({48, 79, 95, 140})
# 8 and 109: it stopped working; 13, 31, 32 and 69: a kernel did what it must not; 43, 45, 61, 62: halted; 74: NVLink;
# 94: a memory error that was kept to this process; 119 to 121: its own processor does not answer.
_FAULT = frozenset({8, 13, 31, 32, 43, 45, 61, 62, 69, 74, 94, 109, 119, 120, 121})


@dataclass(frozen=True, slots=True)
class Xid:
    """One message of the driver; `pid` is the process that it names, if any."""

    number: int
    pid: int | None
    text: str


class KernelLog:
    """The kernel's log from the making of this on. Nothing here raises: where it may not be read it is empty."""

    def __init__(self, path: Path = _KERNEL_LOG):
        self._descriptor: int | None = None
        with suppress(OSError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def xids(self) -> list[Xid]:
        """The driver's messages since the last call."""
        found = [_XID.search(line) for record in self._records() for line in record.splitlines()]
        return [
            Xid(int(each[1]), int(each[2]) if each[2] else None, printable(each[3].decode(errors="replace"), 120))
            for each in found
            if each is not None
        ]

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _records(self) -> list[bytes]:
        """Each read of the device gives one record, and EPIPE where some were overwritten before they were read."""
        records: list[bytes] = []
        while self._descriptor is not None:
            try:
                record = os.read(self._descriptor, 1 << 13)
            except OSError as error:
                if error.errno == errno.EPIPE:
                    continue
                break
            if not record:
                break
            records.append(record)
        return records


def with_xids(ending: Ending, xids: list[Xid], pid: int) -> Ending:
    """`ending` of the worker `pid`, as exact as the driver's messages make it. They say nothing of a worker that ended
    for a reason that is no GPU's, and those that name another process say nothing of this one."""
    if ending.cause not in ("device_lost", "driver_fault", "worker_crashed"):
        return ending
    causes: tuple[tuple[Cause, frozenset[int]], ...] = (("device_lost", _LOST), ("driver_fault", _FAULT))
    for cause, numbers in causes:
        of_this = [each for each in xids if each.number in numbers and each.pid in (pid, None)]
        if of_this and (cause == "device_lost" or ending.cause != "device_lost"):
            said = f"{ending.why} (kernel log: Xid {of_this[0].number}, {of_this[0].text})"
            return replace(ending, cause=cause, why=said)
    return ending
