"""Next-token prediction: the cross-entropy of every token that is learnt."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from engine.data.examples import Example
from engine.objectives.base import Judged, Objective
from engine.train.batches import MicroBatch


class NextToken(Objective[MicroBatch]):
    """Cross-entropy of every token that is learnt; the unit is the token."""

    unit = "token"

    def collate(self, examples: Sequence[Example]) -> MicroBatch:
        return self.forward.collate(examples)

    def loss(self, batch: MicroBatch, *, scale: float, each: torch.Tensor | None = None) -> torch.Tensor:
        return self.forward.loss(batch, scale, each)

    def observe(self, batch: MicroBatch, each: torch.Tensor | None = None) -> torch.Tensor:
        # Sums, since held-out rows may have more tokens than memory should hold numbers for.
        total = self.forward.summed_loss(batch, each).double()
        return torch.stack((total, total.new_full((), batch.targets)))[None]

    def judge(self, observed: torch.Tensor) -> Judged:
        total, targets = observed.sum(0).tolist()
        return Judged(total / targets)
