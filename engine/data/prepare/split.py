"""Which rows are held out: decided by their content (or group) and the seed alone, whatever their order and number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Chance could hold out two of eighty rows where eight were asked for, too few to measure anything on. Up to so many
# are held out as asked for, whatever chance says.
_FEWEST_UNITS = 10


def split_units(digests: NDArray[np.uint64], groups: NDArray[np.uint64] | None, seed: int) -> NDArray[np.uint64]:
    """(rows,): for each row a number that is equal for rows which must stay together: those of a group, and of rows
    without one (0) the copies of each other. Rows with low numbers are held out first."""
    together = digests if groups is None else np.where(groups != 0, groups, digests)
    return _mixed(together, seed)


def example_units(digests: NDArray[np.uint64], windows: NDArray[np.int32] | None, seed: int) -> NDArray[np.uint64]:
    """(examples,): for each example a number that its content, its part of it (-1: the whole) and the seed decide."""
    if windows is None:
        return _mixed(digests, seed)
    part = (windows + 1).astype(np.uint64)
    with np.errstate(over="ignore"):
        return _mixed(digests + part * np.uint64(0x9E3779B97F4A7C15), seed)


def hold_out(units: NDArray[np.uint64], share: float, strata: NDArray[np.int32] | None = None) -> NDArray[np.bool_]:
    """(rows,): whether each row is held out; at least one unit is and one is not, where there are two and a share.

    Without `strata` a unit is held out or not whatever other rows there are, unless there would be fewer than `share`
    asks for and fewer than ten. With them, as near to `share` as whole units come is held out of each stratum; a unit
    with rows in several counts for that of its first.
    """
    if share == 0 or not len(units) or units.min() == units.max():
        return np.zeros(len(units), dtype=np.bool_)
    if strata is None:
        held_out = units < np.uint64(int(share * 2**64))
        if len(np.unique(units[held_out])) < _FEWEST_UNITS:
            distinct = np.unique(units)
            fewest = max(1, min(_FEWEST_UNITS, round(share * len(distinct))))
            held_out |= units <= distinct[fewest - 1]
    else:
        held_out = _of_each(units, share, strata)
        if not held_out.any():
            held_out = units == units.min()
    return held_out & (units != units.max())


def lowest(keys: NDArray[np.uint64], count: int) -> NDArray[np.bool_]:
    """(rows,): whether each row is among the `count` with the lowest keys; of equal ones the first are."""
    chosen = np.zeros(len(keys), dtype=np.bool_)
    chosen[np.argsort(keys, kind="stable")[:count]] = True
    return chosen


def _of_each(units: NDArray[np.uint64], share: float, strata: NDArray[np.int32]) -> NDArray[np.bool_]:
    distinct, first, unit_of_row = np.unique(units, return_index=True, return_inverse=True)
    stratum = strata[first]
    order = np.argsort(stratum, kind="stable")  # within a stratum still by rising units
    sizes = np.bincount(stratum)
    rank = np.empty(len(distinct), dtype=np.int64)
    rank[order] = np.arange(len(distinct)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return (rank < np.rint(share * sizes)[stratum])[unit_of_row]


def _mixed(numbers: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: every seed gives another order, and seed 0 leaves the hashes as they are."""
    if seed == 0:
        return numbers
    with np.errstate(over="ignore"):
        mixed = numbers + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
