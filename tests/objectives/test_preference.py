"""DPO, ORPO and SimPO against the papers' formulas over whole logits of one sequence at a time, gradients included."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import assert_same, forward_of, gradients, pairs
from torch.nn import functional as F

from engine.data.examples import Examples
from engine.objectives.log_probabilities import log_probabilities
from engine.objectives.preference import Dpo, Orpo, Preference, Simpo
from engine.spec import ObjectiveSection
from engine.train.forward import Forward

BETA, MARGIN = 0.3, 0.4
TRAIN, HELD_OUT = pairs(5), pairs(3, seed=1, first_row=5)


def objective_of(kind: str, forward: Forward) -> Preference:
    match kind:
        case "dpo":
            return Dpo(forward, TRAIN, HELD_OUT, beta=BETA)
        case "simpo":
            return Simpo(forward, TRAIN, HELD_OUT, beta=BETA, margin=MARGIN)
    return Orpo(forward, TRAIN, HELD_OUT, beta=BETA)


def refer(objective: Preference, folder: Path) -> None:
    objective.refer(
        folder,
        token_budget=64,
        device=torch.device("cpu"),
        autocast=nullcontext,
        progress=lambda done, total: None,
        keep=lambda size, write: write(),
    )


def plain_log_probabilities(model: torch.nn.Module, example) -> list[torch.Tensor]:
    """Of the tokens of each of the example's answers, by the model's own forward."""
    found, start = [], 0
    for length in example.parts:
        span = slice(start, start + length)
        ids = torch.from_numpy(example.input_ids[span]).long()
        trained = torch.from_numpy(example.trained[span])
        shares = F.log_softmax(model(input_ids=ids[None]).logits[0, :-1], dim=-1)
        found.append(shares.gather(1, ids[1:, None])[:, 0][trained[1:]])
        start += length
    return found


def plain_loss(kind: str, answers: list[torch.Tensor], base: list[torch.Tensor]) -> torch.Tensor:
    better, worse = answers
    if kind == "dpo":
        ratios = [mine.sum() - before.sum() for mine, before in zip(answers, base, strict=True)]
        return -torch.log(torch.sigmoid(BETA * (ratios[0] - ratios[1])))
    better, worse = better.mean(), worse.mean()
    if kind == "simpo":
        return -torch.log(torch.sigmoid(BETA * better - BETA * worse - BETA * MARGIN))
    odds = [torch.exp(each) / (1 - torch.exp(each)) for each in (better, worse)]
    return -better - BETA * torch.log(torch.sigmoid(torch.log(odds[0] / odds[1])))


@pytest.mark.parametrize("attention", ["auto", "eager"])
@pytest.mark.parametrize("method", ["full", "lora", "partial"])
@pytest.mark.parametrize("kind", ["dpo", "orpo", "simpo"])
def test_loss_and_gradients_are_the_papers(tmp_path: Path, llama: Path, kind: str, method: str, attention: str) -> None:
    forward = forward_of(llama, method=method, attention=attention, trained_layers=1)
    assert forward.padded is (attention == "eager")
    objective = objective_of(kind, forward)
    refer(objective, tmp_path)
    examples = list(TRAIN)
    forward.use_plain_attention()
    with torch.no_grad():
        base = [plain_log_probabilities(forward.model, example) for example in examples]
        for parameter in forward.model.parameters():  # away from the base, where DPO's loss is the same for all
            if parameter.requires_grad:
                parameter.mul_(1.05)
    losses = [
        plain_loss(kind, plain_log_probabilities(forward.model, example), before)
        for example, before in zip(examples, base, strict=True)
    ]
    (sum(losses) * 0.25 * 2).backward()
    expected = gradients(forward)
    forward.use_training_attention()

    batch = objective.collate(examples)
    assert (batch.targets, batch.target_tokens) == (5, sum(int(example.trained.sum()) for example in examples))
    each = torch.empty(5)
    loss = objective.loss(batch, scale=0.25, each=each)
    (2 * loss).backward()  # as fp16's loss scale does: the gradient that comes in must be used
    assert float(loss) == pytest.approx(float(sum(losses)) * 0.25, rel=1e-4)
    torch.testing.assert_close(each, torch.stack(losses).detach(), rtol=1e-4, atol=1e-5)
    assert_same(gradients(forward), expected)


def test_what_is_said_of_held_out_pairs(tmp_path: Path, llama: Path) -> None:
    objective = objective_of("dpo", forward_of(llama))
    refer(objective, tmp_path)
    observed = objective.observe(objective.collate(list(HELD_OUT)))
    judged = objective.judge(observed)  # the base itself, which rewards nothing
    assert judged.loss == pytest.approx(0.6931, abs=1e-3)
    judged = objective.judge(torch.tensor([[0.1, 2.0], [0.3, 0.0], [0.2, -1.0], [0.2, 1.0]]))
    assert judged.loss == pytest.approx(0.2)
    assert judged.metrics == {"preference_accuracy": 2.5 / 4, "reward_margin": 0.5}


def test_references_are_kept_and_made_anew_for_other_rows(tmp_path: Path, llama: Path) -> None:
    refer(first := objective_of("dpo", forward_of(llama)), tmp_path)
    tuned = forward_of(llama)
    with torch.no_grad():
        for parameter in tuned.model.parameters():
            parameter.mul_(1.1)
    refer(again := objective_of("dpo", tuned), tmp_path)
    assert torch.equal(again.collate(list(TRAIN)).references, first.collate(list(TRAIN)).references)
    refer(other := Dpo(tuned, HELD_OUT, TRAIN, beta=BETA), tmp_path)
    assert not torch.allclose(other.collate(list(TRAIN)).references, first.collate(list(TRAIN)).references)


def test_odds_of_certain_answers_are_finite() -> None:
    from engine.objectives.preference import _log_of_rest

    shares = torch.tensor([-1e-6, -1e-3, -0.5, -0.8, -30.0, -200.0], requires_grad=True)
    rest = _log_of_rest(shares)
    rest.sum().backward()
    expected = torch.log1p(-torch.exp(shares.detach().double()))
    torch.testing.assert_close(rest.detach().double(), expected, rtol=1e-4, atol=1e-7)
    assert shares.grad is not None
    assert bool(shares.grad.isfinite().all())


def test_simpo_has_the_beta_of_its_own_rewards() -> None:
    assert ObjectiveSection(kind="simpo").beta == 2.0
    assert ObjectiveSection(kind="simpo", beta=0.5).beta == 0.5
    assert ObjectiveSection(kind="dpo").beta == 0.1


@pytest.mark.parametrize("damage", ["cut off", "another byte", "no tensors", "other tokens"])
def test_damaged_references_and_those_of_other_tokens_are_made_anew(tmp_path: Path, llama: Path, damage: str) -> None:
    refer(first := objective_of("dpo", forward_of(llama)), tmp_path)
    path, train = tmp_path / "references.safetensors", TRAIN
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "another byte":
        data = bytearray(path.read_bytes())
        data[-(len(TRAIN) + len(HELD_OUT)) * 4] ^= 1  # within the numbers, which no reader of the format checks
        path.write_bytes(data)
    elif damage == "no tensors":
        path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    else:  # of the same rows and lengths
        train = Examples.of([replace(each, input_ids=(each.input_ids + 1).astype(np.int32)) for each in TRAIN])
    objective = Dpo(forward_of(llama), train, HELD_OUT, beta=BETA)
    refer(objective, tmp_path)
    assert objective.references is not None and first.references is not None
    same = np.allclose(objective.references.values, first.references.values)
    assert same == (damage != "other tokens")
    refer(again := Dpo(forward_of(llama), train, HELD_OUT, beta=BETA), tmp_path)
    assert again.references is not None
    assert np.array_equal(again.references.values, objective.references.values)


def test_a_loss_scale_that_half_precision_cannot_hold_is_applied_all_the_same() -> None:
    hidden = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).half().requires_grad_()
    head = torch.nn.Linear(8, 30, bias=False).half().requires_grad_(False)
    labels, owners = torch.arange(6), torch.tensor([0, 0, 0, 1, 1, 1])
    found = log_probabilities(hidden, labels, owners, 2, head, [], chunk=4)
    (found.sum() * 1e-4 * 2.0**17).backward()  # 131,072, and float16 ends at 65,504
    plain = F.log_softmax(head(hidden.detach().float().requires_grad_().half()).float(), dim=-1)
    assert hidden.grad is not None and bool(hidden.grad.isfinite().all())
    expected = F.one_hot(labels, 30).float() - plain.exp()
    expected = expected @ head.weight.float() * 1e-4 * 2.0**17
    torch.testing.assert_close(hidden.grad.float(), expected, rtol=2e-2, atol=2e-2)
