"""Contrast among all candidates of a step against its plain form, however the step is divided."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import assert_same, forward_of, gradients, similar
from torch.nn import functional as F

from engine.data.examples import Example
from engine.methods.heads import NO_HEAD
from engine.objectives.embedding import Embedding

TEMPERATURE = 0.1
NEGATIVES = [0, 2, 1, 0, 1]


def with_positive_of(example: Example, other: Example) -> Example:
    """`example` with the positive of `other` in place of its own."""
    start, stop = other.parts[0], sum(other.parts[:2])
    ids = np.concatenate([example.input_ids[: example.parts[0]], other.input_ids[start:stop]])
    parts = (example.parts[0], stop - start)
    return replace(example, input_ids=ids, trained=np.zeros(len(ids), dtype=np.bool_), parts=parts)


def plain_losses(model: torch.nn.Module, examples: list[Example], pooling: str) -> list[torch.Tensor]:
    vectors, texts = [], []
    for example in examples:
        for ids in np.split(example.input_ids, np.cumsum(example.parts)[:-1]):
            states = model(input_ids=torch.from_numpy(ids).long()[None]).last_hidden_state[0]
            vectors.append(F.normalize(states.mean(0) if pooling == "mean" else states[-1], dim=0))
            texts.append(ids.tolist())
    starts = np.cumsum([0, *(len(example.parts) for example in examples)])[:-1]
    candidates = [index for index in range(len(vectors)) if index not in starts]
    losses = []
    for start in starts:
        same = (texts[start], texts[start + 1])
        allowed = [each for each in candidates if each == start + 1 or texts[each] not in same]
        scores = torch.stack([vectors[start] @ vectors[each] for each in allowed]) / TEMPERATURE
        losses.append(-torch.log_softmax(scores, 0)[allowed.index(start + 1)])
    return losses


@pytest.mark.parametrize("attention", ["auto", "eager"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_loss_and_gradients_are_the_plain_ones_however_a_step_is_divided(
    llama: Path, method: str, pooling: str, attention: str
) -> None:
    forward = forward_of(llama, method=method, head=NO_HEAD, attention=attention)
    examples = list(similar(NEGATIVES))
    examples[3] = with_positive_of(examples[3], examples[1])  # two questions with one answer
    forward.use_plain_attention()
    losses = plain_losses(forward.model, examples, pooling)
    (sum(losses) / 5).backward()
    expected = gradients(forward)
    forward.use_training_attention()

    assert forward.agree_with_plain_forward(examples)
    objective = Embedding(forward, pooling=pooling, temperature=TEMPERATURE, step_units=5)
    for parts in ((5,), (2, 3), (1, 1, 1, 1, 1)):
        bounds = np.cumsum((0, *parts))
        batches = [objective.collate(examples[start:stop]) for start, stop in pairwise(bounds)]
        total, each = 0.0, []
        for batch in objective.begin_step(list(batches), nullcontext):
            each.append(torch.empty(batch.targets))
            loss = objective.loss(batch, scale=1 / 5, each=each[-1])
            loss.backward()
            total += float(loss.detach())
        assert total == pytest.approx(float(sum(losses)) / 5, rel=1e-4)
        torch.testing.assert_close(torch.cat(each), torch.stack(losses).detach(), rtol=1e-3, atol=1e-4)
        assert_same(gradients(forward), expected)


def test_dropout_draws_the_same_for_the_slopes_as_for_the_gradients(llama: Path) -> None:
    """The vectors of a divided step are the very ones whose slopes were taken."""
    forward = forward_of(llama, method="lora", head=NO_HEAD, dropout=0.5)
    forward.model.train()
    objective = Embedding(forward, pooling="mean", temperature=TEMPERATURE, step_units=4)
    examples = list(similar([0, 1, 0, 1]))
    batches = objective.begin_step([objective.collate(examples[:2]), objective.collate(examples[2:])], nullcontext)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    for batch in batches:
        objective.loss(batch, scale=1.0)
    assert torch.equal(torch.get_rng_state(), after)


def test_what_is_said_of_held_out_pairs(llama: Path) -> None:
    forward = forward_of(llama, head=NO_HEAD)
    objective = Embedding(forward, pooling="mean", temperature=TEMPERATURE, step_units=2)
    examples = list(similar([0, 1, 0, 0, 2]))
    together = objective.observe(objective.collate(examples))
    apart = torch.cat([objective.observe(objective.collate([example])) for example in examples])
    judged = objective.judge(together)
    assert judged.loss == pytest.approx(objective.judge(apart).loss, rel=1e-5)
    forward.use_plain_attention()
    losses = [plain_losses(forward.model, part, "mean") for part in (examples[:2], examples[2:4], examples[4:])]
    assert judged.loss == pytest.approx(float(sum(chain.from_iterable(losses))) / 5, rel=1e-4)
    # A vector that equals its anchor's is found; one that is the opposite is not.
    roles, digests = torch.tensor([[0], [1], [0], [1.0]]), torch.arange(8.0).view(4, 2)
    vectors = torch.tensor([[1, 0], [1, 0], [0, 1], [0, -1.0]])
    judged = objective.judge(torch.cat((vectors, roles, digests), 1))
    assert judged.metrics == {"recall_at_1": 0.5}
