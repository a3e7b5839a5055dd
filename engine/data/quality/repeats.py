"""Rows that are the same as others, from the columns of all rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.data.quality.findings import Duplicates, Pair, Place, Repeated

_PAIRS_SHOWN = 8
_ANSWERS_SHOWN = 3
# An answer that as many rows have is worth a look, in however small a set of rows.
_FEWEST_REPEATS = 5


def equal_groups(digests: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each row the position of the first with the same digest."""
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    return first[group].astype(np.int64)


def duplicates(
    firsts: NDArray[np.int64],
    training_rows: int,
    skip: NDArray[np.bool_] | None,
    place: Callable[[int], Place],
    likeness: Callable[[int, int], float],
) -> Duplicates:
    """What the groups say. `firsts` (rows,) is the first row of each row's group; the first `training_rows` rows are
    trained on and the rest held out; rows in `skip` are told of elsewhere."""
    positions = np.arange(len(firsts))
    repeats = firsts != positions
    if skip is not None:
        repeats &= ~skip
    is_held_out = positions >= training_rows
    across = repeats & is_held_out & (firsts < training_rows)
    within = repeats & ~is_held_out

    def pairs(rows: NDArray[np.bool_]) -> tuple[Pair, ...]:
        shown = np.flatnonzero(rows)[:_PAIRS_SHOWN].tolist()
        return tuple(Pair(place(row), place(int(firsts[row])), likeness(row, int(firsts[row]))) for row in shown)

    return Duplicates(
        within=int(within.sum()),
        within_held_out=int((repeats & is_held_out & ~across).sum()),
        across=int(across.sum()),
        groups=len(np.unique(firsts[repeats])),
        pairs=pairs(repeats & ~across),
        across_pairs=pairs(across),
    )


def repeated_answers(digests: NDArray[np.uint64], place: Callable[[int], Place], arrow: str) -> tuple[Repeated, ...]:
    """The answers that most rows share; `digests` (rows,) has 0 for rows without one."""
    values, firsts, counts = np.unique(digests, return_index=True, return_counts=True)
    wanted = (counts >= _FEWEST_REPEATS) & (values != 0)
    most = sorted(np.flatnonzero(wanted).tolist(), key=lambda at: (-counts[at], firsts[at]))[:_ANSWERS_SHOWN]
    found = []
    for at in most:
        rows = np.flatnonzero(digests == values[at])[:_PAIRS_SHOWN]
        places = tuple(place(int(row)) for row in rows)
        found.append(Repeated(places[0].excerpt.partition(arrow)[2], int(counts[at]), places))
    return tuple(found)
