"""Every example once, no row over its length, always the same, and close to as few rows as can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.packing import pack, packing_efficiency


@st.composite
def loads(draw):
    capacity = draw(st.integers(1, 200))
    return draw(st.lists(st.integers(1, capacity), max_size=80)), capacity


def first_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """The number of rows of the textbook algorithm, which is at most 11/9 of the optimum and 6/9 of a row."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        at = next((at for at, room in enumerate(rooms) if room >= length), None)
        if at is None:
            rooms.append(capacity)
            at = -1
        rooms[at] -= length
    return len(rooms)


@given(loads(), st.integers(0, 2**32 - 1))
def test_every_example_is_packed_once_and_no_row_overflows(load, seed):
    lengths, capacity = load
    packs = pack(lengths, capacity, seed)
    assert sorted(np.concatenate([*packs, np.empty(0, np.int64)]).tolist()) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in row) <= capacity for row in packs)
    again = pack(np.asarray(lengths, dtype=np.int32), capacity, seed)
    assert [row.tolist() for row in again] == [row.tolist() for row in packs]
    # The bound holds against the optimum, which is not below the sum of all lengths; one row of slack for both.
    assert len(packs) <= first_fit_decreasing(lengths, capacity) * 11 / 9 + 1
    if packs:
        assert packing_efficiency(lengths, packs, capacity) == pytest.approx(sum(lengths) / len(packs) / capacity)


@pytest.mark.parametrize("seed", [0, 1])
def test_skewed_lengths_leave_hardly_a_slot_empty(seed):
    lengths = np.random.default_rng(5).lognormal(5, 1, 20_000).astype(int).clip(1, 2048)
    packs = pack(lengths, 2048, seed)
    assert packing_efficiency(lengths, packs, 2048) > 0.999
    some = lengths[:2000].tolist()
    assert len(pack(some, 2048, seed)) <= first_fit_decreasing(some, 2048) * 1.01


def test_the_seed_moves_equal_examples_and_the_order_of_rows():
    lengths = [40] * 30 + [60] * 30
    one, other = pack(lengths, 100, seed=1), pack(lengths, 100, seed=2)
    assert len(one) == len(other) == 30
    assert sorted(map(sorted, (row.tolist() for row in one))) != sorted(map(sorted, (row.tolist() for row in other)))


def test_nothing_packs_into_nothing():
    assert pack([], 10, 0) == []
    assert packing_efficiency([], [], 10) == 1.0
