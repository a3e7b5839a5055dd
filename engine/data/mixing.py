"""Several sources in one epoch: how often each example comes, as a pure function of the seed and the epoch.

A source with `repeats` of 2 gives each of its examples twice in an epoch; one with 0.5 gives one half of them in the
first epoch and the other half in the second. An epoch of a source has always the same number of examples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def repeats_from_weights(weights: Sequence[float], counts: Sequence[int]) -> tuple[float, ...]:
    """How often each source's examples come in an epoch, so that the examples of an epoch stand to each other as
    `weights` and the source that has most for its weight comes exactly once.

    `counts` are the examples of each source; one without any is left at 1.
    """
    wanted = [weight / count if count else None for weight, count in zip(weights, counts, strict=True)]
    least = min((each for each in wanted if each is not None), default=1.0)
    return tuple(1.0 if each is None else each / least for each in wanted)


def epoch_indices(sources: NDArray[np.integer], repeats: Sequence[float], epoch: int, seed: int) -> NDArray[np.int32]:
    """The examples of epoch `epoch` (from 0), each as often as it comes, source by source.

    `sources` says for each example which source it is from; `repeats` holds a number for every source.
    """
    parts = []
    for source, often in enumerate(repeats):
        own = np.flatnonzero(sources == source).astype(np.int32)
        whole = int(often)
        parts += [own] * whole
        taken = partial_count(len(own), often)
        if taken:
            # Round and round one fixed order: no example comes again before all others have.
            shuffled = np.random.default_rng((seed, source)).permutation(own)
            parts.append(np.take(shuffled, np.arange(epoch * taken, (epoch + 1) * taken), mode="wrap"))
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def partial_count(count: int, repeats: float) -> int:
    """Of a source of `count` examples, how many come once more than the others in an epoch; of a source that comes
    less than once at least one."""
    return max(round((repeats - int(repeats)) * count), int(repeats < 1 and count > 0))
