"""Batches of examples of similar length, for rows that are padded to the longest of their batch.

Sorting everything would put the same examples together in every epoch. So they are shuffled, sorted within windows of
some batches, and the batches are shuffled again: what stands beside what is left to chance, and little is padding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A batch spans about a 64th of all lengths, so that a few slots in a hundred are padding; and a step's batches come
# from windows all over the epoch.
_BATCHES_IN_WINDOW = 64


def grouped_by_length(lengths: NDArray[np.integer], batch: int, seed: int) -> NDArray[np.int32]:
    """Every index into `lengths` once, `batch` after `batch` of similar length; what fills no batch comes last."""
    rng = np.random.default_rng(seed)
    order = np.arange(lengths.size, dtype=np.int32)
    rng.shuffle(order)
    if batch > 1:
        window = batch * _BATCHES_IN_WINDOW
        whole = lengths.size // window * window
        for part in (order[:whole].reshape(-1, window), order[whole:].reshape(1, -1)):
            longest_first = np.argsort(-lengths[part], axis=1, kind="stable")
            part[:] = np.take_along_axis(part, longest_first, axis=1)
        batches = order[: lengths.size // batch * batch].reshape(-1, batch)
        rng.shuffle(batches)
    return order


def padding_share(lengths: NDArray[np.integer], batch_starts: NDArray[np.integer]) -> float:
    """Share of the slots, 0 to 1, that are padding when the examples from each of `batch_starts` to the next are
    padded to the longest of them; `lengths` in the order in which they come."""
    if not lengths.size:
        return 0.0
    longest = np.maximum.reduceat(lengths, batch_starts).astype(np.int64)
    sizes = np.diff(batch_starts, append=lengths.size)
    return 1.0 - int(lengths.sum(dtype=np.int64)) / int((longest * sizes).sum())
