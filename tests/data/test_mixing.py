"""Examples of several sources come as often as they should, and none is left out for good."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.mixing import epoch_indices, partial_count, repeats_from_weights


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    repeats=st.lists(st.floats(0.01, 5), min_size=4, max_size=4),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 50),
)
def test_an_epoch_has_each_example_as_often_as_its_source_says(counts, repeats, seed, epoch):
    sources = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    repeats = tuple(repeats[: len(counts)])
    indices = epoch_indices(sources, repeats, epoch, seed)
    assert indices.tolist() == epoch_indices(sources, repeats, epoch, seed).tolist()
    times = Counter(indices.tolist())
    for source, (count, often) in enumerate(zip(counts, repeats, strict=True)):
        own = [times[index] for index in np.flatnonzero(sources == source)]
        assert all(each in (int(often), int(often) + 1) for each in own)
        assert sum(own) == int(often) * count + partial_count(count, often)
        assert abs(sum(own) - often * count) <= 0.5 or (often < 1 and sum(own) == 1)


def test_half_a_source_is_followed_by_the_other_half():
    sources = np.repeat(np.array([0, 1], np.int16), (10, 10))
    first, second = (epoch_indices(sources, (1.0, 0.5), epoch, seed=3) for epoch in (0, 1))
    assert sorted(first[:10].tolist()) == sorted(second[:10].tolist()) == list(range(10))
    assert sorted([*first[10:].tolist(), *second[10:].tolist()]) == list(range(10, 20))
    assert first.tolist() != epoch_indices(sources, (1.0, 0.5), 0, seed=4).tolist()


def test_every_example_comes_before_any_comes_again():
    sources = np.zeros(10, np.int16)
    seen = Counter(np.concatenate([epoch_indices(sources, (0.3,), epoch, 0) for epoch in range(10)]).tolist())
    assert seen == Counter(dict.fromkeys(range(10), 3))


def test_weights_are_shares_of_an_epoch_that_has_every_row():
    assert repeats_from_weights((1, 1), (100, 100)) == (1.0, 1.0)
    assert repeats_from_weights((1, 1), (100, 25)) == (1.0, 4.0)
    assert repeats_from_weights((3, 1), (100, 100)) == (3.0, 1.0)
    repeats = repeats_from_weights((0.5, 0.3, 0.2), (1000, 10, 0))
    assert repeats == pytest.approx((1.0, 60.0, 1.0))
