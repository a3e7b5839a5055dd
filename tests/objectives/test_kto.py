"""KTO against the paper's formula over whole logits, with the reference point taken over a whole step."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import assert_same, feedback, forward_of, gradients
from torch.nn import functional as F

from engine.data.examples import Example, Examples
from engine.objectives.kto import Kto
from engine.objectives.references import References

BETA, LIKED, DISLIKED = 0.3, 1.5, 0.5
LENGTHS = [6] * 8 + [120] * 8
TRAIN, HELD_OUT = feedback(6), feedback(4, seed=1, first_row=6)


def plain_log_probability(model: torch.nn.Module, ids: np.ndarray, answer: int) -> torch.Tensor:
    """Of all tokens from position `answer` on."""
    row = torch.from_numpy(ids).long()
    shares = F.log_softmax(model(input_ids=row[None]).logits[0, :-1], dim=-1)
    return shares.gather(1, row[1:, None])[answer - 1 :, 0].sum()


def answer_of(example: Example) -> int:
    return int(np.flatnonzero(example.trained)[0])


@pytest.mark.parametrize("attention", ["auto", "eager"])
def test_loss_and_gradients_are_the_papers_however_a_step_is_divided(
    tmp_path: Path, llama: Path, attention: str
) -> None:
    forward = forward_of(llama, attention=attention)
    objective = Kto(forward, TRAIN, HELD_OUT, beta=BETA, liked_weight=LIKED, disliked_weight=DISLIKED, seed=0)
    objective.refer(
        tmp_path,
        token_budget=48,
        device=torch.device("cpu"),
        autocast=nullcontext,
        progress=lambda done, total: None,
        keep=lambda size, write: write(),
    )
    examples = list(TRAIN)
    others = [objective._with_answer_of_another(example) for example in examples]
    for example, other in zip(examples, others, strict=True):
        prompt = answer_of(example)
        assert answer_of(other) == prompt
        assert np.array_equal(other.input_ids[:prompt], example.input_ids[:prompt])
        wanted = [each.input_ids[answer_of(each) :].tolist() for each in examples if each.row != example.row]
        found = other.input_ids[prompt:].tolist()
        assert any(answer[: len(found)] == found for answer in wanted)

    forward.use_plain_attention()
    rows = [(each.input_ids, answer_of(each)) for each in (*examples, *others)]
    with torch.no_grad():
        base = torch.stack([plain_log_probability(forward.model, *row) for row in rows])
        for parameter in forward.model.parameters():
            parameter.mul_(1.02)
    ratios = torch.stack([plain_log_probability(forward.model, *row) for row in rows]) - base
    point = ratios[6:].mean().detach().clamp(min=0)
    losses = []
    for example, ratio in zip(examples, ratios[:6], strict=True):
        liked = example.labels == (1,)
        value = torch.sigmoid(BETA * (ratio - point if liked else point - ratio))
        losses.append((LIKED if liked else DISLIKED) * (1 - value))
    (sum(losses) / 6).backward()
    expected = gradients(forward)
    forward.use_training_attention()

    for parts in ((6,), (4, 2), (1, 1, 1, 1, 1, 1)):
        bounds = np.cumsum((0, *parts))
        batches = [objective.collate(examples[start:stop]) for start, stop in pairwise(bounds)]
        total, each = 0.0, []
        for batch in objective.begin_step(list(batches), nullcontext):
            each.append(torch.empty(batch.targets))
            loss = objective.loss(batch, scale=1 / 6, each=each[-1])
            loss.backward()
            total += float(loss.detach())
        assert total == pytest.approx(float(sum(losses)) / 6, rel=1e-4)
        torch.testing.assert_close(torch.cat(each), torch.stack(losses).detach(), rtol=1e-4, atol=1e-5)
        assert_same(gradients(forward), expected)


def test_what_is_said_of_held_out_answers(llama: Path) -> None:
    objective = Kto(forward_of(llama), TRAIN, HELD_OUT, beta=0.5, liked_weight=1, disliked_weight=1, seed=0)
    # how much likelier an answer became, how much one of another row did, liked or not
    judged = objective.judge(torch.tensor([[3.0, 1.0, 1.0], [0.5, 1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, 1.0, -1.0]]))
    values = torch.sigmoid(0.5 * torch.tensor([2.0, -0.5, 2.0, 0.0]))
    assert judged.loss == pytest.approx(float(1 - values.mean()))
    assert judged.metrics["feedback_accuracy"] == 2.5 / 4
    assert judged.metrics["reward_margin"] == pytest.approx(0.5 * 1.75)
    assert judged.each is not None
    torch.testing.assert_close(judged.each.float(), 1 - values)


@pytest.mark.parametrize("attention", ["auto", "eager"])
def test_answers_of_other_rows_take_no_more_room_at_once_than_the_rows(llama: Path, attention: str) -> None:
    """Short rows stand together in a batch, and the answers that they are given may be long."""
    ids = np.arange(4, 124, dtype=np.int32)
    rows = [Example(ids[:length], np.arange(length) > 1, row, labels=(row % 2,)) for row, length in enumerate(LENGTHS)]
    train = Examples.of(rows)
    objective = Kto(
        forward_of(llama, attention=attention),
        *(train, Examples.of([])),
        beta=BETA,
        liked_weight=1,
        disliked_weight=1,
        seed=0,
    )
    objective.references = References(np.arange(len(rows)), np.zeros((len(rows), 2), dtype=np.float32))
    batch = objective.collate(rows[:8])
    assert sum(len(each.document_lengths) for each in batch.companions) == 8
    for companion in batch.companions:
        assert companion.input_ids.numel() <= max(batch.input_ids.numel(), *companion.document_lengths)
    assert max(max(each.document_lengths) for each in batch.companions) == 120
    assert [row for each in batch.companions for row in each.rows] == list(batch.rows)
