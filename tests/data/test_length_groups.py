"""Similar lengths side by side, nothing left out, and chance kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.data.length_groups import grouped_by_length, padding_share


@given(st.lists(st.integers(1, 500), max_size=300), st.integers(1, 9), st.integers(0, 99))
def test_every_example_comes_once(lengths, batch, seed):
    order = grouped_by_length(np.array(lengths, np.int32), batch, seed)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert order.tolist() == grouped_by_length(np.array(lengths, np.int32), batch, seed).tolist()


def test_little_is_padding_and_batches_are_mixed():
    lengths = np.random.default_rng(1).lognormal(5, 1, 20_000).astype(np.int32).clip(1, 2048)
    order = grouped_by_length(lengths, 8, seed=0)
    starts = np.arange(0, lengths.size, 8)
    assert padding_share(lengths, starts) > 0.6
    assert padding_share(lengths[order], starts) < 0.08
    # Long and short batches follow one another by chance, and other seeds put others together.
    longest = lengths[order].reshape(-1, 8).max(axis=1)
    assert 0.3 < (np.diff(longest) > 0).mean() < 0.7
    other = grouped_by_length(lengths, 8, seed=1).reshape(-1, 8)
    assert not {frozenset(row) for row in order.reshape(-1, 8).tolist()} & {frozenset(row) for row in other.tolist()}


def test_padding_is_counted_by_batch():
    assert padding_share(np.array([4, 2, 6]), np.array([0, 2])) == 1 - 12 / (8 + 6)
    assert padding_share(np.array([], int), np.array([], int)) == 0.0
