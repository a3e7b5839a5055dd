"""Several examples into rows of fixed length, so that few slots of a batch are padding.

Longest first, each into the fullest row that still has room (best-fit decreasing: the same worst case as
first-fit decreasing, at most 11/9 of the optimum and one row, and in practice within a per cent of it). Examples of
one length are interchangeable, and so are rows with the same room left, so they are placed many at once: the work
grows with the number of different lengths and rooms, and ten million examples take a second or two and some ten bytes
each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Ids = NDArray[np.int32]

# Examples sorted at once: what a sort takes beside its result stays a few megabytes.
_SORTED_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Packs:
    """Rows of examples, flat: row r holds the examples order[offsets[r] : offsets[r + 1]]."""

    order: _Ids
    """(examples,)"""
    offsets: NDArray[np.int64]
    """(rows + 1,)"""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> _Ids:
        return self.order[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[_Ids]:
        return (self[row] for row in range(len(self)))

    def tokens(self, lengths: NDArray[np.integer]) -> NDArray[np.int64]:
        """Tokens of each row, (rows,)."""
        ends = np.concatenate(([0], np.cumsum(lengths[self.order], dtype=np.int64)))
        return np.diff(ends[self.offsets])


@dataclass(frozen=True, slots=True)
class _Placed:
    """One step of packing: the next examples in order went into `rows`, `copies` into each."""

    rows: _Ids
    copies: int


def pack(lengths: Sequence[int] | NDArray[np.integer], capacity: int, seed: int) -> Packs:
    """Which examples go into which row, every index into `lengths` exactly once.

    `lengths` and `capacity` are in tokens; no length may be below 1 or above `capacity`. The same arguments
    always give the same rows; `seed` decides which of two examples of one length goes first, and the order
    of the rows.
    """
    sizes = np.asarray(lengths)
    if not sizes.size:
        return Packs(np.empty(0, np.int32), np.zeros(1, np.int64))
    assert sizes.min() >= 1 and sizes.max() <= capacity, "an example does not fit into a row"
    rng = np.random.default_rng(seed)
    counts = np.bincount(sizes, minlength=1)
    longest_first = _longest_first(sizes, counts, rng)
    placed, rows = _place(counts, capacity)
    return _arranged(longest_first, placed, rng.permutation(rows).astype(np.int32))


def count_rows(lengths: NDArray[np.integer], capacity: int) -> int:
    """How many rows `pack` makes, whatever its seed."""
    return _place(np.bincount(lengths, minlength=1), capacity)[1] if lengths.size else 0


def packing_efficiency(lengths: Sequence[int] | NDArray[np.integer], rows: int, capacity: int) -> float:
    """Share of the slots of `rows` rows that hold a token when all of `lengths` are in them, 0 to 1; 1 for no rows."""
    return int(np.sum(lengths, dtype=np.int64)) / (rows * capacity) if rows else 1.0


def _longest_first(sizes: NDArray[np.integer], counts: NDArray[np.int64], rng: np.random.Generator) -> _Ids:
    """All indices by falling length, equal lengths in random order: a counting sort, a part at a time."""
    order = np.empty(sizes.size, np.int32)
    lengths_below = np.cumsum(counts[::-1])[::-1] - counts  # examples that are longer than each length
    following = lengths_below.copy()
    for start in range(0, sizes.size, _SORTED_AT_ONCE):
        part = sizes[start : start + _SORTED_AT_ONCE]
        by_length = np.argsort(part, kind="stable")
        here = np.bincount(part, minlength=len(counts))
        rank = np.arange(part.size) - np.repeat(np.cumsum(here) - here, here)
        order[following[part[by_length]] + rank] = by_length + start
        following += here
    for start, count in zip(lengths_below[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
        rng.shuffle(order[start : start + count])
    return order


def _place(counts: NDArray[np.int64], capacity: int) -> tuple[list[_Placed], int]:
    """Where the examples go, `counts[n]` of length n, the longest first; and the number of rows."""
    placed: list[_Placed] = []
    rows_by_room: list[list[_Ids]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set while some row has exactly r slots left
    row_count = 0

    def put(rows: _Ids, room: int, size: int, copies: int) -> None:
        nonlocal rooms
        placed.append(_Placed(rows, copies))
        if left := room - copies * size:
            rows_by_room[left].append(rows)
            rooms |= 1 << left

    for size in np.flatnonzero(counts)[::-1].tolist():
        waiting = int(counts[size])
        while waiting:
            if fitting := rooms >> size:
                room = size + (fitting & -fitting).bit_length() - 1
                rows = rows_by_room[room].pop()
                if not rows_by_room[room]:
                    rooms &= ~(1 << room)
            else:
                room = capacity
                needed = -(-waiting // (capacity // size))
                rows = np.arange(row_count, row_count + needed, dtype=np.int32)
                row_count += needed
            # A row that took one example is now the fullest with room for the next of the same length.
            copies = room // size
            full = min(len(rows), waiting // copies)
            rest = waiting - full * copies if full < len(rows) else 0
            if full:
                put(rows[:full], room, size, copies)
            if rest:
                put(rows[full : full + 1], room, size, rest)
            if (untouched := full + bool(rest)) < len(rows):
                rows_by_room[room].append(rows[untouched:])
                rooms |= 1 << room
            waiting -= full * copies + rest
    return placed, row_count


def _arranged(examples: _Ids, placed: list[_Placed], position: _Ids) -> Packs:
    """`examples` in the rows that they were `placed` in, in order; row r comes at position[r] of the result."""
    held = np.zeros(len(position), np.int32)
    for each in placed:
        held[each.rows] += each.copies
    counts = np.empty_like(held)
    counts[position] = held
    offsets = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    following = offsets[position]  # where each row's next example goes
    order = np.empty_like(examples)
    start = 0
    for each in placed:
        places = following[each.rows][:, None] + np.arange(each.copies)
        order[places] = examples[start : start + places.size].reshape(places.shape)
        following[each.rows] += each.copies
        start += places.size
    return Packs(order, offsets)
