"""Learning classes of texts: a linear head reads a text's last token, as transformers' classification heads do.

Where a text has exactly one class, the loss is the cross-entropy of the softmax over classes; where any number of
classes may hold, the mean over classes of each one's own cross-entropy (transformers' single_label_classification and
multi_label_classification).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from engine.data.examples import Example
from engine.objectives.base import Judged, Objective, of_units
from engine.train.batches import MicroBatch
from engine.train.documents import document_ids, document_offsets, end_position
from engine.train.forward import Forward


@dataclass(frozen=True, kw_only=True)
class LabelledBatch(MicroBatch):
    ends: torch.Tensor
    """(units,): where each text is read, among the flattened states."""
    truth: torch.Tensor
    """float32 (units, classes): 1 for the classes a text has, else 0."""


class Classification(Objective[LabelledBatch]):
    """The unit is the text. Held-out metrics: macro_f1, the mean F1 of the classes that occur, and accuracy, the share
    of texts that got exactly their classes; with several classes a text micro_f1 as well, the F1 over all decisions."""

    unit = "text"

    def __init__(self, forward: Forward, *, classes: int, several: bool):
        super().__init__(forward)
        self.classes, self.several = classes, several
        self._padding_id = forward.base.config.get_text_config().pad_token_id

    def collate(self, examples: Sequence[Example]) -> LabelledBatch:
        batch = self.forward.collate(examples)
        ends = [end_position(ids, self._padding_id) for ids in document_ids(examples)]
        offsets = document_offsets(batch.document_lengths, padded=self.forward.padded)
        truth = torch.zeros((len(examples), self.classes))
        for unit, example in enumerate(examples):
            truth[unit, list(example.labels)] = 1
        places = torch.from_numpy(offsets + np.asarray(ends, dtype=np.int64))
        return of_units(LabelledBatch, batch, len(examples), ends=places, truth=truth)

    def loss(self, batch: LabelledBatch, *, scale: float, each: torch.Tensor | None = None) -> torch.Tensor:
        losses = self._losses(self._logits(batch), batch.truth)
        if each is not None:
            each.copy_(losses.detach())
        return losses.sum() * scale

    @torch.no_grad()
    def observe(self, batch: LabelledBatch, each: torch.Tensor | None = None) -> torch.Tensor:
        logits = self._logits(batch)
        losses = self._losses(logits, batch.truth)
        if each is not None:
            each.copy_(losses)
        found = (logits > 0).float() if self.several else F.one_hot(logits.argmax(1), self.classes).float()
        counts = (found * batch.truth, found * (1 - batch.truth), (1 - found) * batch.truth)
        whole = (found == batch.truth).all(1).float()
        sums = torch.stack((losses.sum(), whole.sum(), losses.new_full((), batch.targets)))
        return torch.cat((sums, *(count.sum(0) for count in counts)))[None].double()

    def judge(self, observed: torch.Tensor) -> Judged:
        sums, counts = observed.sum(0).split((3, 3 * self.classes))
        loss, whole, texts = sums.tolist()
        counts = counts.view(3, self.classes)
        right, wrong, missed = counts[:, counts.sum(0) > 0]
        scores = 2 * right / (2 * right + wrong + missed)
        metrics = {"macro_f1": float(scores.mean()) if len(scores) else 0.0, "accuracy": whole / texts}
        if self.several:
            decisions = 2 * right.sum() + wrong.sum() + missed.sum()
            metrics["micro_f1"] = float(2 * right.sum() / decisions) if decisions else 0.0
        return Judged(loss / texts, metrics)

    def _logits(self, batch: LabelledBatch) -> torch.Tensor:
        """(units, classes), float32."""
        return self.forward.head(self.forward.states(batch).index_select(0, batch.ends)).float()

    def _losses(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        if self.several:
            return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
        return F.cross_entropy(logits, truth, reduction="none")
