"""How the rows of a source are understood, decided once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.data.contents import Kind
from engine.data.source import Shape


@dataclass(frozen=True, slots=True)
class Reading:
    """Picklable; what a Recogniser holds all rows of a source to."""

    kind: Kind
    shape: Shape
    columns: Mapping[str, str]
    """Which column plays which part in most rows."""
    several: bool = False
    """labelled: whether any number of labels may hold at once."""
    highest_score: float = 1.0
    """similar: what a pair of the same meaning has in the score column."""
