"""Learning vectors of texts, so that an anchor's is nearer to its positive's than to any other text's: InfoNCE over
cosine similarities (van den Oord and others, arXiv 1807.03748; sentence-transformers' MultipleNegativesRankingLoss).

Candidates of an anchor are the positives and the given negatives of the whole optimizer step, however it is divided
into micro-batches: the step's vectors are made first without gradients, the loss's slope by each vector is taken, and
then every micro-batch goes through the model again with its slopes (Gao and others, arXiv 2101.06983). A step of one
micro-batch is spared that. A candidate that is the same text as the anchor or its positive is none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from engine.data.examples import Example
from engine.objectives.base import Autocast, Judged, Objective, of_units
from engine.objectives.contrast import contrast, recall_at_1
from engine.train.batches import MicroBatch
from engine.train.documents import document_ids, document_offsets
from engine.train.forward import Forward

Pooling = Literal["last", "mean"]

# Anchors that compete for their positives when held-out rows are judged: enough to be hard, few enough that the square
# of their similarities is small.
JUDGED_TOGETHER = 1024
_HALF_DIGEST = 1 << 24


@dataclass(frozen=True)
class RandomState:
    """Where the generator of random numbers stood; kept on the host."""

    state: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class SimilarBatch(MicroBatch):
    places: torch.Tensor
    """Slots that make a text's vector: (tokens,) of all texts, or the last one of each (texts,)."""
    texts: torch.Tensor
    """(places,): the text of each."""
    shares: torch.Tensor
    """float32 (texts, 1): one over the number of its places."""
    roles: NDArray[np.int8]
    """For each text, 0 for an anchor, 1 for its positive, 2 for a negative."""
    digests: NDArray[np.int64]
    """For each text, the same number for the same tokens."""
    slopes: torch.Tensor | None = None
    """float32 (texts, hidden size): the gradient of the step's summed losses by each vector, where it was taken."""
    losses: torch.Tensor | None = None
    """float32 (units,): the units' losses among the candidates of the step, where they were taken."""
    random: RandomState | None = None
    """From where dropout drew when the slopes were taken."""


class Embedding(Objective[SimilarBatch]):
    """The unit is the anchor with its positive. Held-out metric: recall_at_1, the share of anchors whose positive is
    nearer than every other candidate among JUDGED_TOGETHER of them. The held-out loss is over `step_units` at a time,
    as many as compete in a training step on average, so that the two losses can be compared."""

    unit = "pair"
    knows_each = False

    def __init__(self, forward: Forward, *, pooling: Pooling, temperature: float, step_units: int):
        super().__init__(forward)
        self.pooling, self.temperature, self.step_units = pooling, temperature, max(2, step_units)

    def collate(self, examples: Sequence[Example]) -> SimilarBatch:
        batch = self.forward.collate(examples)
        lengths = np.asarray(batch.document_lengths, dtype=np.int64)
        offsets = document_offsets(batch.document_lengths, padded=self.forward.padded)
        texts = np.arange(len(lengths), dtype=np.int64)
        places = offsets + lengths - 1
        shares = np.ones(len(lengths), dtype=np.float32)
        if self.pooling == "mean":
            begins = np.cumsum(lengths) - lengths
            places = np.arange(lengths.sum()) + np.repeat(offsets - begins, lengths)
            texts, shares = np.repeat(texts, lengths), (1 / lengths).astype(np.float32)
        return of_units(
            SimilarBatch,
            batch,
            len(examples),
            places=torch.from_numpy(places),
            texts=torch.from_numpy(texts),
            shares=torch.from_numpy(shares)[:, None],
            roles=np.array([min(part, 2) for each in examples for part in range(len(each.parts))], dtype=np.int8),
            digests=np.array([_digest(ids) for ids in document_ids(examples)], dtype=np.int64),
        )

    def begin_step(self, batches: list[SimilarBatch], autocast: Autocast) -> list[SimilarBatch]:
        if len(batches) == 1:
            return batches
        device = next(self.forward.base.parameters()).device
        states, vectors = [], []
        for batch in batches:
            states.append(RandomState(_random_state(device)))
            with torch.no_grad(), autocast():
                vectors.append(self._vectors(batch.to(device)))
        sizes = [len(each) for each in vectors]
        together = torch.cat(vectors).requires_grad_()
        losses = contrast(together, *_joined(batches), temperature=self.temperature)
        (slopes,) = torch.autograd.grad(losses.sum(), together)
        parts = zip(slopes.split(sizes), losses.detach().split([each.units for each in batches]), states, strict=True)
        return [
            replace(batch, slopes=slope, losses=loss, random=state)
            for batch, (slope, loss, state) in zip(batches, parts, strict=True)
        ]

    def loss(self, batch: SimilarBatch, *, scale: float, each: torch.Tensor | None = None) -> torch.Tensor:
        if batch.random is not None:
            _set_random_state(batch.random.state, batch.input_ids.device)
        vectors = self._vectors(batch)
        if batch.slopes is None or batch.losses is None:
            losses = contrast(vectors, *_joined([batch]), temperature=self.temperature)
            summed = losses.sum()
        else:
            losses = batch.losses
            known = (vectors * batch.slopes).sum()  # it has the right gradient, but not the value
            summed = losses.sum() + known - known.detach()
        if each is not None:
            each.copy_(losses.detach())
        return summed * scale

    @torch.no_grad()
    def observe(self, batch: SimilarBatch, each: torch.Tensor | None = None) -> torch.Tensor:
        """Each text's vector, role and digest, on the host: waits for the device."""
        vectors = self._vectors(batch).cpu()
        roles = torch.from_numpy(batch.roles)[:, None].float()
        digests = torch.from_numpy(np.stack(np.divmod(batch.digests, _HALF_DIGEST), 1)).float()
        return torch.cat((vectors, roles, digests), 1)

    def judge(self, observed: torch.Tensor) -> Judged:
        vectors = observed[:, :-3]
        roles = observed[:, -3].numpy().astype(np.int8)
        halves = observed[:, -2:].numpy().astype(np.int64)
        digests = halves[:, 0] * _HALF_DIGEST + halves[:, 1]
        losses = torch.cat(
            [
                contrast(vectors[part], roles[part], digests[part], temperature=self.temperature)
                for part in _parts(roles, self.step_units)
            ]
        )
        hits = torch.cat(
            [recall_at_1(vectors[part], roles[part], digests[part]) for part in _parts(roles, JUDGED_TOGETHER)]
        )
        return Judged(float(losses.double().mean()), {"recall_at_1": float(hits.mean())}, losses)

    def _vectors(self, batch: SimilarBatch) -> torch.Tensor:
        """Each text's vector of length one, float32 (texts, hidden size)."""
        states = self.forward.states(batch).index_select(0, batch.places).float()
        if self.pooling == "mean":
            sums = states.new_zeros((len(batch.shares), states.shape[1])).index_add(0, batch.texts, states)
            states = sums * batch.shares
        return F.normalize(states, dim=1)


def _joined(batches: Sequence[SimilarBatch]) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    return np.concatenate([each.roles for each in batches]), np.concatenate([each.digests for each in batches])


def _parts(roles: NDArray[np.int8], units: int) -> list[slice]:
    """Slices of the texts, each with so many anchors and their candidates; the last takes what is left."""
    starts = np.flatnonzero(roles == 0)[::units]
    return [slice(*bounds) for bounds in zip(starts, [*starts[1:], len(roles)], strict=True)]


def _digest(ids: NDArray[np.int32]) -> int:
    # 48 bits: two float32 hold them exactly.
    return int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=6).digest(), "little")


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(state: torch.Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
