"""The line that the kernel keeps of each process in /proc/PID/stat, as far as it is needed here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One process at one moment. `state` is the kernel's letter for what its main thread does, `session` the pid that
    leads its session; `computed_ticks` is the processor time of all its threads, and `start_time` when it began, both
    in clock ticks, the latter since the boot."""

    state: str
    parent: int
    session: int
    computed_ticks: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessStat:
        """The process that has `pid` now. Raises ProcessLookupError when there is none, OSError."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except FileNotFoundError:
            raise ProcessLookupError(pid) from None
        fields = stat_fields(text)
        return cls(fields[0], int(fields[1]), int(fields[3]), int(fields[11]) + int(fields[12]), int(fields[19]))


def stat_fields(text: str) -> list[str]:
    """What stands in the line behind the command's name, which comes in brackets and may hold brackets itself."""
    return text.rpartition(")")[2].split()
