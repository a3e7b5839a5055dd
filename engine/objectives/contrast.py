"""How well the vectors of anchors find those of their positives among all candidates."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

ANCHOR, POSITIVE = 0, 1


def contrast(
    vectors: torch.Tensor, roles: NDArray[np.int8], digests: NDArray[np.int64], *, temperature: float
) -> torch.Tensor:
    """The loss of every anchor: the cross-entropy of its positive among all candidates, float32 (anchors,).

    vectors: (texts, width) of length one; roles: 0 for an anchor, 1 for its positive, 2 for others, in order of the
    anchors; digests: equal for equal texts.
    """
    scores, wanted = _similarities(vectors, roles, digests)
    return F.cross_entropy(scores / temperature, wanted, reduction="none")


def recall_at_1(vectors: torch.Tensor, roles: NDArray[np.int8], digests: NDArray[np.int64]) -> torch.Tensor:
    """For every anchor 1 if its positive is the nearest candidate, else 0; arguments as for `contrast`."""
    scores, wanted = _similarities(vectors, roles, digests)
    return (scores.argmax(1) == wanted).float()


def _similarities(
    vectors: torch.Tensor, roles: NDArray[np.int8], digests: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines (anchors, candidates), minus infinity for the same text once more, and each anchor's own candidate."""
    anchors, positives, candidates = np.flatnonzero(roles == ANCHOR), np.flatnonzero(roles == POSITIVE), roles != ANCHOR
    places = np.flatnonzero(candidates)
    own = np.searchsorted(places, positives)
    excluded = (digests[places] == digests[anchors, None]) | (digests[places] == digests[positives, None])
    excluded[np.arange(len(anchors)), own] = False

    def on_device(array: NDArray) -> torch.Tensor:
        return torch.from_numpy(array).to(vectors.device, non_blocking=True)

    # In float32 also under autocast: at a temperature of 0.05, bf16's rounding of a cosine is worth 0.08 nats.
    with torch.autocast(vectors.device.type, enabled=False):
        scores = vectors[on_device(anchors)] @ vectors[on_device(places)].T
    return scores.masked_fill(on_device(excluded), -torch.inf), on_device(own)
