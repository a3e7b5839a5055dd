"""Learning from answers that were liked or disliked: KTO (Ethayarajh and others, arXiv 2402.01306, equation 7).

An answer's reward is how much likelier it became than under the untouched base. It is compared with a reference point:
how much likelier answers became that belong to other prompts, which stands for how far the model has moved as a whole.
Every row is given one such answer of another row, the same throughout the run, so that the base's log-probability of
it can be known beforehand; and the point is taken over the rows of the whole optimizer step, so that it is the same
however a step is divided into micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from engine.data.examples import Example, Examples
from engine.objectives.base import Autocast, Judged, of_units
from engine.objectives.sequences import SequenceBatch, SequenceObjective
from engine.train.forward import Forward


@dataclass(frozen=True, kw_only=True)
class FeedbackBatch(SequenceBatch):
    liked: torch.Tensor
    """float32 (units,): 1 for liked, -1 for disliked."""
    point: torch.Tensor | None = None
    """The step's reference point, a scalar; until it is known, that of the batch's own companions stands for it."""


class Kto(SequenceObjective[FeedbackBatch]):
    """The unit is the answer. Held-out metrics: feedback_accuracy, the share of answers whose reward is on their side
    of the reference point (a tie counts half), and reward_margin, the mean reward of liked answers less that of
    disliked ones."""

    unit = "answer"
    knows_each = False
    needs_references = True

    def __init__(
        self,
        forward: Forward,
        train: Examples,
        held_out: Examples,
        *,
        beta: float,
        liked_weight: float,
        disliked_weight: float,
        seed: int,
    ):
        super().__init__(forward, train, held_out)
        self.beta, self.liked_weight, self.disliked_weight = beta, liked_weight, disliked_weight
        self._partners = np.concatenate(
            [_partners(len(train), seed), len(train) + _partners(len(held_out), seed)]
        ).astype(np.int64)

    def collate(self, examples: Sequence[Example]) -> FeedbackBatch:
        batch = self.answers(examples)
        liked = [1.0 if example.labels == (1,) else -1.0 for example in examples]
        others = [self._with_answer_of_another(example) for example in examples]
        companions = tuple(self.answers(group) for group in self._at_once(others, batch.input_ids.numel()))
        return of_units(FeedbackBatch, batch, len(examples), liked=torch.tensor(liked), companions=companions)

    def _at_once(self, examples: Sequence[Example], slots: int) -> Iterator[list[Example]]:
        """`examples` in order, in groups of at most so many slots, or of one: short rows may be given long answers."""
        group: list[Example] = []
        held = widest = 0
        for example in examples:
            width = max(widest, len(example))
            taken = width * (len(group) + 1) if self.forward.padded else held + len(example)
            if group and taken > slots:
                yield group
                group, width, taken = [], len(example), len(example)
            group.append(example)
            held, widest = taken, width
        yield group

    @torch.no_grad()
    def begin_step(self, batches: list[FeedbackBatch], autocast: Autocast) -> list[FeedbackBatch]:
        device = next(self.forward.base.parameters()).device
        with autocast():
            moved = torch.cat([self._movement(batch.companions, device) for batch in batches])
        point = moved.mean().clamp(min=0)
        return [replace(batch, companions=(), point=point) for batch in batches]

    def loss(self, batch: FeedbackBatch, *, scale: float, each: torch.Tensor | None = None) -> torch.Tensor:
        point = batch.point
        if point is None:
            with torch.no_grad():
                point = self._movement(batch.companions, batch.liked.device).mean().clamp(min=0)
        rewards = self.log_probabilities(batch) - batch.references[:, 0]
        losses = self._losses(rewards, point, batch.liked)
        if each is not None:
            each.copy_(losses.detach())
        return losses.sum() * scale

    @torch.no_grad()
    def observe(self, batch: FeedbackBatch, each: torch.Tensor | None = None) -> torch.Tensor:
        rewards = self.log_probabilities(batch) - batch.references[:, 0]
        return torch.stack((rewards, self._movement(batch.companions, rewards.device), batch.liked), 1)

    def judge(self, observed: torch.Tensor) -> Judged:
        rewards, moved, liked = observed.double().unbind(1)
        point = moved.mean().clamp(min=0)
        losses = self._losses(rewards, point, liked)
        lead = (rewards - point) * liked
        metrics = {"feedback_accuracy": float(((lead > 0).double() + 0.5 * (lead == 0)).mean())}
        if (liked > 0).any() and (liked < 0).any():
            margin = rewards[liked > 0].mean() - rewards[liked < 0].mean()
            metrics["reward_margin"] = self.beta * float(margin)
        return Judged(float(losses.mean()), metrics, losses)

    def base_values(self, batch: FeedbackBatch) -> torch.Tensor:
        others = [self.log_probabilities(companion) for companion in batch.companions]
        return torch.stack((self.log_probabilities(batch), torch.cat(others)), 1)

    def _movement(self, companions: Sequence[SequenceBatch], device: torch.device) -> torch.Tensor:
        """How much likelier each answer of another row became, (units,)."""
        moved = [companion.to(device) for companion in companions]
        return torch.cat([self.log_probabilities(each) - each.references[:, 1] for each in moved])

    def _losses(self, rewards: torch.Tensor, point: torch.Tensor, liked: torch.Tensor) -> torch.Tensor:
        weights = torch.where(liked > 0, self.liked_weight, self.disliked_weight)
        return weights * (1 - torch.sigmoid(self.beta * liked * (rewards - point)))

    def _with_answer_of_another(self, example: Example) -> Example:
        """The example's prompt with its partner's answer, cut where the two would be longer than the longest row."""
        assert self.references is not None
        partner = int(self._partners[self.references.positions([example.row])[0]])
        count = len(self.train)
        other = self.train[partner] if partner < count else self.held_out[partner - count]
        prompt = int(np.flatnonzero(example.trained)[0])
        answer = int(np.flatnonzero(other.trained)[0])
        longest = max(len(example), len(other))
        ids = np.concatenate([example.input_ids[:prompt], other.input_ids[answer:]])[:longest]
        trained = np.concatenate([np.zeros(prompt, dtype=np.bool_), other.trained[answer:]])[:longest]
        return replace(example, input_ids=ids, trained=trained)


def _partners(count: int, seed: int) -> np.ndarray:
    """For each of `count` rows another one, none twice: the next on a random round through all of them."""
    round_trip = np.random.default_rng((seed, count)).permutation(count)
    partners = np.empty(count, dtype=np.int64)
    partners[round_trip] = np.roll(round_trip, -1)
    return partners
