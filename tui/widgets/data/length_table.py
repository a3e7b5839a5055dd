"""How long the rows of a data set are: how many of each length, and what a longest length would cut."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

LADDER = tuple(step for power in range(5, 18) for step in (2**power, 2**power * 3 // 2))[:-1]
"""Lengths that < and > walk through, in half octaves: 32, 48, 64, 96, ... 131,072."""


def edges_of(per_octave: int) -> list[int]:
    """Where bars begin and end, so many in each doubling; with two or more, every length of the ladder is one."""
    steps = {2**power * (per_octave + part) // per_octave for power in range(5, 17) for part in range(per_octave)}
    return sorted({*steps, LADDER[-1]})


@dataclass(frozen=True, slots=True)
class Bar:
    """The rows that are longer than `above` and at most `upto`."""

    above: int
    upto: int
    rows: int


class LengthTable:
    """Rows by length. Exact for the rows it was made of, however many: a length is kept once, with its count."""

    def __init__(
        self, rows_of_length: Mapping[int, int], unit: Literal["tokens", "characters"], complete: bool = False
    ):
        self.unit = unit
        self.complete = complete
        """Made of every row, not of the first ones."""
        self._lengths = sorted(rows_of_length)
        counts = [rows_of_length[each] for each in self._lengths]
        self._rows_upto = [0, *accumulate(counts)]
        self._units_upto = [
            0,
            *accumulate(length * count for length, count in zip(self._lengths, counts, strict=True)),
        ]

    @property
    def rows(self) -> int:
        return self._rows_upto[-1]

    @property
    def units(self) -> int:
        """Tokens (or characters) of all rows."""
        return self._units_upto[-1]

    @property
    def longest(self) -> int:
        return self._lengths[-1] if self._lengths else 0

    def cut_rows(self, length: int) -> int:
        """Rows that are longer than `length`."""
        return self.rows - self._rows_upto[bisect_right(self._lengths, length)]

    def cut_units(self, length: int) -> int:
        """Tokens that stand beyond `length` in their row."""
        at = bisect_right(self._lengths, length)
        return self.units - self._units_upto[at] - length * (self.rows - self._rows_upto[at])

    def quantile(self, share: float) -> int:
        """The length that this share of the rows does not pass; 0 without rows."""
        if not self._lengths:
            return 0
        wanted = share * self.rows
        at = next(index for index, upto in enumerate(self._rows_upto[1:]) if upto >= wanted)
        return self._lengths[at]

    def bars(self, edges: Sequence[int]) -> list[Bar]:
        """Rows between each two `edges`, from the one before the shortest row to the one after the longest."""
        bars = [
            Bar(above, upto, self.cut_rows(above) - self.cut_rows(upto))
            for above, upto in pairwise(sorted({0, *edges}))
        ]
        used = [index for index, bar in enumerate(bars) if bar.rows]
        return bars[used[0] : used[-1] + 1] if used else []


def whole_at(table: LengthTable, share: float = 0.995) -> int | None:
    """The first length of the ladder at which this share of the rows stays whole; None where no length does."""
    return next((each for each in LADDER if table.cut_rows(each) <= (1 - share) * table.rows), None)


def moved(length: int, direction: int) -> int:
    """The next longer (1) or shorter (-1) length of the ladder; the ends stay."""
    if direction > 0:
        return next((each for each in LADDER if each > length), length)
    return next((each for each in reversed(LADDER) if each < length), length)
