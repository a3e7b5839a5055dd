"""Every example once, no row over its length, always the same, and close to as few rows as can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.packing import count_rows, pack, packing_efficiency


@st.composite
def loads(draw):
    capacity = draw(st.integers(1, 200))
    return draw(st.lists(st.integers(1, capacity), max_size=80)), capacity


def best_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """The number of rows of the textbook algorithm, one example after another."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        room = min(fitting, default=capacity)
        if fitting:
            rooms.remove(room)
        rooms.append(room - length)
    return len(rooms)


@given(loads(), st.integers(0, 2**32 - 1))
def test_every_example_is_packed_once_as_one_by_one(load, seed):
    lengths, capacity = load
    packs = pack(lengths, capacity, seed)
    assert sorted(packs.order.tolist()) == list(range(len(lengths)))
    sums = [sum(lengths[index] for index in row) for row in packs]
    assert all(0 < each <= capacity for each in sums)
    assert packs.tokens(np.asarray(lengths, dtype=np.int32)).tolist() == sums
    again = pack(np.asarray(lengths, dtype=np.int32), capacity, seed)
    assert [row.tolist() for row in again] == [row.tolist() for row in packs]
    # Placing many at once is best-fit decreasing, which is at most 11/9 of the optimum and one row.
    assert len(packs) == best_fit_decreasing(lengths, capacity) == count_rows(np.asarray(lengths, int), capacity)
    if len(packs):
        assert packing_efficiency(lengths, len(packs), capacity) == pytest.approx(sum(lengths) / len(packs) / capacity)


@pytest.mark.parametrize("seed", [0, 1])
def test_skewed_lengths_leave_hardly_a_slot_empty(seed):
    lengths = np.random.default_rng(5).lognormal(5, 1, 20_000).astype(int).clip(1, 2048)
    packs = pack(lengths, 2048, seed)
    assert packing_efficiency(lengths, len(packs), 2048) > 0.999


def test_many_lengths_in_long_rows_are_packed_by_the_part():
    lengths = np.random.default_rng(5).integers(1, 60_000, 1 << 21).astype(np.int32)
    packs = pack(lengths, 131_072, 3)
    assert (np.bincount(packs.order, minlength=lengths.size) == 1).all()
    assert packs.tokens(lengths).max() <= 131_072
    assert packing_efficiency(lengths, len(packs), 131_072) > 0.999


def test_the_seed_moves_equal_examples_and_the_order_of_rows():
    lengths = [40] * 30 + [60] * 30
    one, other = pack(lengths, 100, seed=1), pack(lengths, 100, seed=2)
    assert len(one) == len(other) == 30
    assert sorted(map(sorted, (row.tolist() for row in one))) != sorted(map(sorted, (row.tolist() for row in other)))
    assert [row.tolist() for row in one] != sorted(row.tolist() for row in one)


def test_nothing_packs_into_nothing():
    assert len(pack([], 10, 0)) == 0
    assert packing_efficiency([], 0, 10) == 1.0
