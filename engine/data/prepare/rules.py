"""Which usable rows are set aside after all, and which are held out: array work over all rows at once."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.data.prepare.split import hold_out, lowest, split_units
from engine.data.prepare.table import Fate, Table

Duplicates = Literal["keep", "drop_exact", "drop_near"]

# With few training rows, still so many held-out ones that the usual fifty answers can be compared.
_FEWEST_HELD_OUT = 50


@dataclass(slots=True)
class Twins:
    """For rows that were set aside because of another row: that row."""

    rows: list[NDArray[np.int64]] = field(default_factory=list)
    others: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        self.rows.append(rows)
        self.others.append(others)

    def of(self, begins: int, ends: int) -> dict[int, int]:
        """Those of the rows from `begins` to `ends`."""
        found: dict[int, int] = {}
        for rows, others in zip(self.rows, self.others, strict=True):
            first, last = np.searchsorted(rows, [begins, ends])
            found.update(zip(rows[first:last].tolist(), others[first:last].tolist(), strict=True))
        return found


@dataclass(frozen=True, slots=True)
class Rules:
    held_out_source: int | None
    """Number of the source that is held out; None: a share of the others is."""
    held_out_share: float
    split_seed: int
    rows: int | None
    duplicates: Duplicates
    with_benchmarks: bool


def decide(table: Table, rules: Rules, scratch: Path) -> Twins:
    """Settle the fate of every row of `table`; `scratch` is a folder on disk. Returns what rows were set aside for."""
    rows, twins = table.rows, Twins()
    given = np.zeros(len(rows), np.bool_) if rules.held_out_source is None else rows.source == rules.held_out_source
    if given.any():
        _set_aside_copies(table, ~given, given, Fate.IN_HELD_OUT, twins)
        if rows.group is not None:
            grouped = _usable(table) & (rows.group != 0)
            also_held_out = np.isin(rows.group, np.unique(rows.group[grouped & given]))
            rows.fate[grouped & ~given & also_held_out] = Fate.GROUP_HELD_OUT
    if rules.with_benchmarks and rows.leak is not None:
        rows.fate[_usable(table) & (rows.leak >= 0) & ~given] = Fate.IN_BENCHMARK
    for side in (given, ~given):
        if rules.duplicates != "keep":
            _keep_first(table, side, twins)
        if rules.duplicates == "drop_near":
            _keep_first_alike(table, side, twins, scratch)
    if rules.held_out_source is not None:
        rows.fate[_usable(table) & given] = Fate.HELD_OUT
    else:
        _split(table, rules, twins)
    if rules.rows is not None:
        _leave_out(table, rules)
    return twins


def _usable(table: Table) -> NDArray[np.bool_]:
    return table.rows.fate <= Fate.HELD_OUT


def _split(table: Table, rules: Rules, twins: Twins) -> None:
    rows = table.rows
    at = np.flatnonzero(_usable(table))
    groups = None if rows.group is None else rows.group[at]
    units = split_units(rows.digest[at], groups, rules.split_seed)
    held_out = hold_out(units, rules.held_out_share, None if rows.stratum is None else rows.stratum[at])
    rows.fate[at[held_out]] = Fate.HELD_OUT
    if groups is not None:
        # Copies of a row may be in different groups, and so on both sides.
        sides = rows.fate == Fate.HELD_OUT
        _set_aside_copies(table, ~sides, sides, Fate.HELD_OUT_TWIN, twins)


def _set_aside_copies(
    table: Table, side: NDArray[np.bool_], other_side: NDArray[np.bool_], fate: Fate, twins: Twins
) -> None:
    """Set aside what of `side` is on the `other_side` too."""
    rows = table.rows
    usable = _usable(table)
    others, at = np.flatnonzero(usable & other_side), np.flatnonzero(usable & side)
    if not len(others) or not len(at):
        return
    distinct, first = np.unique(rows.digest[others], return_index=True)
    place = np.minimum(np.searchsorted(distinct, rows.digest[at]), len(distinct) - 1)
    copies = distinct[place] == rows.digest[at]
    rows.fate[at[copies]] = fate
    twins.add(at[copies], others[first[place[copies]]])


def _keep_first(table: Table, side: NDArray[np.bool_], twins: Twins) -> None:
    """Set aside every later copy of a row."""
    rows = table.rows
    at = np.flatnonzero(_usable(table) & side)
    _, first, which = np.unique(rows.digest[at], return_index=True, return_inverse=True)
    original = first[which]
    later = original != np.arange(len(at))
    rows.fate[at[later]] = Fate.COPY
    twins.add(at[later], at[original[later]])


def _keep_first_alike(table: Table, side: NDArray[np.bool_], twins: Twins, scratch: Path) -> None:
    """Set aside every row that is nearly the same as an earlier one."""
    from engine.data.quality.similar import SIGNATURE_NUMBERS, near_duplicate_groups

    rows = table.rows
    chosen = _usable(table) & side
    at = np.flatnonzero(chosen)
    if not len(at):
        return
    # On disk, since the signatures of ten million rows would take 1.3 GB of memory.
    with tempfile.TemporaryFile(dir=scratch) as file:
        for each in table.shards:
            if (kept := chosen[table.span(each)]).any():
                file.write(np.ascontiguousarray(each.shard.columns("signature")["signature"][kept]).tobytes())
        file.flush()
        signatures = np.memmap(file, dtype=np.uint16, mode="r", shape=(len(at), SIGNATURE_NUMBERS))  # type: ignore[call-overload]
        first = near_duplicate_groups(signatures)
    later = first != np.arange(len(at))
    rows.fate[at[later]] = Fate.NEAR_COPY
    twins.add(at[later], at[first[later]])


def _leave_out(table: Table, rules: Rules) -> None:
    """Keep `rules.rows` training rows, and held-out rows in proportion. More rows later include these."""
    assert rules.rows is not None
    rows, share = table.rows, rules.held_out_share
    wanted = {Fate.TRAIN: rules.rows}
    if rules.held_out_source is None:
        wanted[Fate.HELD_OUT] = max(math.ceil(rules.rows * share / (1 - share)), _FEWEST_HELD_OUT)
    for fate, count in wanted.items():
        at = np.flatnonzero(rows.fate == fate)
        keys = split_units(rows.digest[at], None, rules.split_seed)
        rows.fate[at[~lowest(keys, count)]] = Fate.LEFT_OUT
