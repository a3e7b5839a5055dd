"""All usable rows of all sources as columns: some fifty bytes a row, so that ten million take half a gigabyte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.data.examples import Places
from engine.data.prepare.gather import Gathered, PlacedShard
from engine.data.prepare.shards import KINDS, Shard, ShardFacts
from engine.data.prepare.split import example_units

# Where everything is to be learnt: of what is preferred or liked, the answer is all the same.
_LEARNT_WHOLE = (KINDS.index("conversation"), KINDS.index("text"))


class Fate(IntEnum):
    """What becomes of a row that could be tokenised."""

    TRAIN = 0
    HELD_OUT = 1
    LEFT_OUT = 2
    """Not among the rows that data.rows asks for."""
    CUT_OFF = 3
    """No token of an answer is left at the sequence length."""
    ONE_TOKEN = 4
    IN_HELD_OUT = 5
    """Also in the held-out file."""
    IN_BENCHMARK = 6
    COPY = 7
    NEAR_COPY = 8
    HELD_OUT_TWIN = 9
    """The same as a held-out row of another group."""
    GROUP_HELD_OUT = 10
    """Of a group that the held-out file has rows of."""


@dataclass(slots=True)
class Rows:
    """An entry for each usable row, in the order of the sources."""

    shard: NDArray[np.int32]
    row: NDArray[np.int32]
    """Position among the shard's usable rows."""
    digest: NDArray[np.uint64]
    offset: NDArray[np.uint32]
    size: NDArray[np.uint32]
    lengths: NDArray[np.int32]
    """Tokens of all its sequences, each cut to the sequence length; of a text in parts, all tokens."""
    targets: NDArray[np.int32]
    windows: NDArray[np.int32]
    """In how many parts a text is learnt; 0 for rows that are learnt whole."""
    source: NDArray[np.int16]
    fate: NDArray[np.uint8]
    is_cut: NDArray[np.bool_]
    altered: NDArray[np.uint8]
    shape: NDArray[np.uint16]
    group: NDArray[np.uint64] | None
    stratum: NDArray[np.int32] | None
    leak: NDArray[np.int32] | None
    """A benchmark row that it holds; -1 for none."""

    def __len__(self) -> int:
        return len(self.digest)

    def places(self, chosen: NDArray[np.bool_], sequence_length: int, seed: int | None = None) -> Places:
        """The examples of the chosen rows, as they come, or, with a `seed`, in an order of chance that their contents
        and the seed decide; each part of a text has its own place in it."""
        at = np.flatnonzero(chosen)
        parts = self.windows[at]
        windows = None
        lengths = self.lengths[at]
        if parts.any():
            times = np.maximum(parts, 1)
            number = np.arange(int(times.sum())) - np.repeat(np.cumsum(times) - times, times)
            at = np.repeat(at, times)
            in_parts = np.repeat(parts > 0, times)
            windows = np.where(in_parts, number, -1).astype(np.int32)
            whole = np.repeat(lengths, times)
            left = whole - number * (sequence_length - 1)
            lengths = np.where(in_parts, np.minimum(left, sequence_length), whole).astype(np.int32)
        if seed is not None:
            order = np.argsort(example_units(self.digest[at], windows, seed), kind="stable")
            at, lengths, windows = at[order], lengths[order], None if windows is None else windows[order]
        return Places(
            shard=self.shard[at],
            offset=self.offset[at],
            size_bytes=self.size[at],
            lengths=lengths,
            sources=self.source[at],
            windows=windows,
        )


@dataclass(frozen=True, slots=True)
class TableShard:
    """A shard with its place among all."""

    shard: Shard
    placed: PlacedShard
    source: int
    first_row: int
    """Position of its chunk's first row among all rows of all sources."""
    begins: int
    """Of its rows in the table."""

    @property
    def facts(self) -> ShardFacts:
        return self.shard.facts


class Table:
    """The rows of all sources, and the shards that they are in."""

    def __init__(self, gathered: Sequence[Gathered], root: Path, sequence_length: int, train_on: str):
        """Raises OSError and ValueError for shards that are gone or damaged."""
        self.sequence_length, self.train_on = sequence_length, train_on
        self.gathered = gathered
        self.shapes: list[str] = []
        self.strata: list[str] = []
        self.shards: list[TableShard] = []
        first_row = begins = 0
        for source, each in enumerate(gathered):
            for placed in each.shards:
                shard = Shard(each.shard_path(root, placed))
                self.shards.append(TableShard(shard, placed, source, first_row, begins))
                first_row += shard.facts.rows
                begins += shard.facts.usable
        self.row_count = first_row
        self._uncut: list[tuple[NDArray[np.int32], NDArray[np.int64]]] = []
        self.rows = self._read(begins)

    def span(self, shard: TableShard) -> slice:
        """Where the shard's rows stand in the table."""
        return slice(shard.begins, shard.begins + shard.facts.usable)

    def uncut_lengths(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """How many usable rows have so many tokens before any is cut: tokens, rising, and rows. Of a row with several
        sequences its longest counts."""
        tokens = np.concatenate([np.zeros(0, np.int32), *(tokens for tokens, _ in self._uncut)])
        counts = np.concatenate([np.zeros(0, np.int64), *(counts for _, counts in self._uncut)])
        distinct, which = np.unique(tokens, return_inverse=True)
        return distinct, np.bincount(which, weights=counts, minlength=len(distinct)).astype(np.int64)

    def _read(self, count: int) -> Rows:
        rows = _empty(count, with_leaks=any("leak" in each.shard for each in self.shards))
        shapes, strata = _Names(self.shapes), _Names(self.strata)
        for number, each in enumerate(self.shards):
            self._fill(rows, number, each, shapes, strata)
        if rows.group is not None and not rows.group.any():
            rows.group = None
        if self.strata in ([], [""]):
            rows.stratum = None
        return rows

    def _fill(self, rows: Rows, number: int, each: TableShard, shapes: _Names, strata: _Names) -> None:
        at, facts = self.span(each), each.facts
        table = each.shard.columns(
            *("digest", "offset", "size", "altered", "shape", "group", "stratum", "windows"),
            *("kind", "sequences", "tokens", "answers", "spans"),
            *(("leak",) if "leak" in each.shard else ()),
        )
        rows.shard[at] = number
        rows.row[at] = np.arange(facts.usable)
        rows.source[at] = each.source
        for name in ("digest", "offset", "size", "altered", "group"):
            getattr(rows, name)[at] = table[name]
        if rows.leak is not None:
            rows.leak[at] = table.get("leak", -1)
        rows.shape[at] = shapes.numbers(facts.shapes)[table["shape"]]
        assert rows.stratum is not None
        rows.stratum[at] = strata.numbers(facts.strata)[table["stratum"]]
        measured = measure(table, self.sequence_length, self.train_on)
        rows.lengths[at], rows.targets[at], rows.windows[at] = measured.lengths, measured.targets, measured.windows
        rows.is_cut[at], rows.fate[at] = measured.is_cut, measured.fate
        if facts.usable:
            first = np.cumsum(table["sequences"], dtype=np.int64) - table["sequences"]
            self._uncut.append(np.unique(np.maximum.reduceat(table["tokens"], first), return_counts=True))


@dataclass(frozen=True, slots=True)
class Measured:
    """A shard's rows at a sequence length."""

    lengths: NDArray[np.int64]
    targets: NDArray[np.int64]
    windows: NDArray[np.int64]
    is_cut: NDArray[np.bool_]
    fate: NDArray[np.uint8]


def measure(table: dict[str, NDArray], sequence_length: int, train_on: str) -> Measured:
    """What is left of a shard's rows when each sequence is cut to `sequence_length` tokens."""
    count = len(table["sequences"])
    tokens, answers = table["tokens"].astype(np.int64), table["answers"]
    row_of = np.repeat(np.arange(count), table["sequences"])
    sequence_of = np.repeat(np.arange(len(tokens)), answers)
    begins, ends = np.maximum(table["spans"][:, 0], 1), np.minimum(table["spans"][:, 1], sequence_length)
    learnt = np.maximum(ends - begins, 0)
    if train_on == "last_answer":
        learnt[np.flatnonzero(sequence_of[1:] == sequence_of[:-1])] = 0
    cut = np.minimum(tokens, sequence_length)
    targets = np.bincount(sequence_of, weights=learnt, minlength=len(tokens)).astype(np.int64)
    if train_on == "everything":
        learns_all = (table["sequences"] == 1) & np.isin(table["kind"], _LEARNT_WHOLE)
        targets = np.where(learns_all[row_of] & (answers > 0), cut - 1, targets)
    windows = np.zeros(count, dtype=np.int64)
    whole = np.bincount(row_of, weights=tokens, minlength=count).astype(np.int64)
    in_parts = table["windows"]
    windows[in_parts] = -(-(whole[in_parts] - 1) // (sequence_length - 1))
    nothing_left = np.bincount(row_of, weights=(answers > 0) & (targets == 0), minlength=count) > 0
    fate = np.where(nothing_left & ~in_parts, Fate.CUT_OFF, Fate.TRAIN)
    fate = np.where(in_parts & (whole < 2), Fate.ONE_TOKEN, fate)

    def of_rows(values: NDArray) -> NDArray[np.int64]:
        return np.bincount(row_of, weights=values, minlength=count).astype(np.int64)

    return Measured(
        lengths=np.where(in_parts, whole, of_rows(cut)),
        targets=np.where(in_parts, whole - 1, of_rows(targets)),
        windows=windows,
        is_cut=(of_rows(tokens > sequence_length) > 0) & ~in_parts,
        fate=fate.astype(np.uint8),
    )


def _empty(count: int, with_leaks: bool) -> Rows:
    return Rows(
        shard=np.empty(count, np.int32),
        row=np.empty(count, np.int32),
        digest=np.empty(count, np.uint64),
        offset=np.empty(count, np.uint32),
        size=np.empty(count, np.uint32),
        lengths=np.empty(count, np.int32),
        targets=np.empty(count, np.int32),
        windows=np.empty(count, np.int32),
        source=np.empty(count, np.int16),
        fate=np.empty(count, np.uint8),
        is_cut=np.empty(count, np.bool_),
        altered=np.empty(count, np.uint8),
        shape=np.empty(count, np.uint16),
        group=np.empty(count, np.uint64),
        stratum=np.empty(count, np.int32),
        leak=np.empty(count, np.int32) if with_leaks else None,
    )


class _Names:
    """Numbers for names, in the order in which they are met."""

    def __init__(self, names: list[str]):
        self._names = names
        self._numbers: dict[str, int] = {}

    def numbers(self, names: Sequence[str]) -> NDArray[np.int64]:
        for name in names:
            if name not in self._numbers:
                self._numbers[name] = len(self._names)
                self._names.append(name)
        return np.array([self._numbers[name] for name in names] or [0], dtype=np.int64)
