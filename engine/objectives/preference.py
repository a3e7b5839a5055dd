"""Learning from pairs of a better and a worse answer: DPO, ORPO and SimPO. The unit is the pair."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from engine.data.examples import Example, Examples
from engine.objectives.base import Judged
from engine.objectives.sequences import SequenceBatch, SequenceObjective
from engine.train.forward import Forward

# A mean log-probability of zero, an answer that is certain, has infinite odds.
_MOST_CERTAIN = -1e-6


class Preference(SequenceObjective[SequenceBatch]):
    """What the three share. Their held-out metrics: preference_accuracy, the share of pairs whose better answer is
    rewarded more (a tie counts half), and reward_margin, by how much on average."""

    unit = "pair"

    def __init__(self, forward: Forward, train: Examples, held_out: Examples, *, beta: float):
        super().__init__(forward, train, held_out)
        self.beta = beta

    def collate(self, examples: Sequence[Example]) -> SequenceBatch:
        return self.answers(examples)

    @abstractmethod
    def compare(self, answers: torch.Tensor, batch: SequenceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Every pair's loss, and by how much its better answer is rewarded more, each (units,).

        answers: (units, 2), the log-probabilities of the better and the worse answer.
        """

    def loss(self, batch: SequenceBatch, *, scale: float, each: torch.Tensor | None = None) -> torch.Tensor:
        losses, _ = self.compare(self.log_probabilities(batch).view(-1, 2), batch)
        if each is not None:
            each.copy_(losses.detach())
        return losses.sum() * scale

    @torch.no_grad()
    def observe(self, batch: SequenceBatch, each: torch.Tensor | None = None) -> torch.Tensor:
        losses, margins = self.compare(self.log_probabilities(batch).view(-1, 2), batch)
        if each is not None:
            each.copy_(losses)
        return torch.stack((losses, margins), 1)

    def judge(self, observed: torch.Tensor) -> Judged:
        losses, margins = observed.double().unbind(1)
        right = (margins > 0).double() + 0.5 * (margins == 0)
        return Judged(
            float(losses.mean()),
            {"preference_accuracy": float(right.mean()), "reward_margin": float(margins.mean())},
        )


class Dpo(Preference):
    """Direct preference optimisation (Rafailov and others, arXiv 2305.18290, equation 7).

    An answer's reward is beta times how much likelier it became than under the untouched base.
    """

    needs_references = True

    def compare(self, answers: torch.Tensor, batch: SequenceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        better, worse = (self.beta * (answers - batch.references)).unbind(1)
        return -F.logsigmoid(better - worse), better - worse


class Simpo(Preference):
    """Simple preference optimisation (Meng and others, arXiv 2405.14734, equation 6), without a reference.

    An answer's reward is beta times the mean log-probability of its tokens; the better one's is to lead by
    `margin` times beta, the paper's gamma.
    """

    def __init__(self, forward: Forward, train: Examples, held_out: Examples, *, beta: float, margin: float):
        super().__init__(forward, train, held_out, beta=beta)
        self.margin = margin

    def compare(self, answers: torch.Tensor, batch: SequenceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        better, worse = (self.beta * answers / batch.answer_tokens.view(-1, 2)).unbind(1)
        return -F.logsigmoid(better - worse - self.beta * self.margin), better - worse


class Orpo(Preference):
    """Odds ratio preference optimisation (Hong and others, arXiv 2403.07691, equations 4 to 7), without a reference.

    The better answer is learnt as by next-token prediction, its mean over tokens, plus beta times the log-sigmoid of
    how much better its odds are than the worse one's. A reward is the log of an answer's odds.
    """

    def compare(self, answers: torch.Tensor, batch: SequenceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        means = answers / batch.answer_tokens.view(-1, 2)
        odds = means - _log_of_rest(means.clamp(max=_MOST_CERTAIN))
        better, worse = odds.unbind(1)
        return -means[:, 0] - self.beta * F.logsigmoid(better - worse), better - worse


def _log_of_rest(log_share: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) of negative x, exact near zero and far from it."""
    near = log_share > -0.6931471805599453  # log 2: where the two forms are equally good
    # Each form gets only what it can take, or its infinite slope would make the other's one no number.
    beside = torch.where(near, log_share, torch.full_like(log_share, -1.0))
    far = torch.where(near, torch.full_like(log_share, -1.0), log_share)
    return torch.where(near, torch.log(-torch.expm1(beside)), torch.log1p(-torch.exp(far)))
