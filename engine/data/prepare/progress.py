"""How far a preparation is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    done_bytes: int
    """Of all sources as they are stored, including what was prepared before."""
    total_bytes: int
    rows: int
    """Prepared now, rejected ones included; what was prepared before is not counted again."""
    rows_per_second: float
    """Of those; 0 before the first."""

    def __str__(self) -> str:
        """What is being done, for people."""
        return f"tokenising, {self.rows_per_second:,.0f} rows/s" if self.rows_per_second else "reading the data"


Report = Callable[[Progress], None]
