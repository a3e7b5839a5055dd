"""How far a report is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    done_bytes: int
    """Of all sources as they are stored."""
    total_bytes: int
    """With a limit on rows, more than will be read."""
    rows: int
    rows_per_second: float
    """0 before the first."""
    doing: str = "looking at rows"
    """Ends with "comparing rows", when all was read."""


Tell = Callable[[Progress], None]
