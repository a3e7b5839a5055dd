"""Classification against transformers' own classification forward and loss, and its scores against plain counting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from handmade import PADDING_ID, assert_same, forward_of, gradients, labelled

from engine.data.examples import Examples
from engine.methods.heads import Head
from engine.objectives.classification import Classification
from profiles.problem import Problem

NAMES = ("ill", "well", "unsure")


def head(several: bool) -> Head:
    return Head("classes", NAMES, several, PADDING_ID)


@pytest.mark.parametrize("attention", ["auto", "eager"])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(("family", "method"), [("llama", "full"), ("llama", "lora"), ("gpt2", "partial")])
def test_loss_and_gradients_are_those_of_transformers(
    tmp_path: Path, family: str, method: str, several: bool, attention: str
) -> None:
    model = tiny.make_model(tmp_path, family)
    forward = forward_of(model, method=method, head=head(several), attention=attention, trained_layers=1)
    assert forward.model.config.id2label == dict(enumerate(NAMES))
    examples = list(labelled([(0, 2), (), (1,), (0,)] if several else [(0,), (2,), (1,), (0,)]))
    # A text that ends with the padding token is read before it, as transformers does.
    padded_text = np.append(examples[0].input_ids, np.int32(PADDING_ID))
    examples[0] = replace(examples[0], input_ids=padded_text, trained=np.zeros(len(padded_text), dtype=np.bool_))
    forward.use_plain_attention()
    losses = []
    for example in examples:
        truth = torch.zeros(1, 3)
        truth[0, list(example.labels)] = 1
        wanted = truth if several else torch.tensor(example.labels)
        losses.append(forward.model(torch.from_numpy(example.input_ids).long()[None], labels=wanted).loss)
    (sum(losses) / 4).backward()
    expected = gradients(forward)
    assert any("score" in name for name in expected)
    forward.use_training_attention()

    assert forward.agree_with_plain_forward(examples)
    objective = Classification(forward, classes=3, several=several)
    each = torch.empty(4)
    loss = objective.loss(objective.collate(examples), scale=1 / 4, each=each)
    loss.backward()
    torch.testing.assert_close(each, torch.stack(losses).detach(), rtol=1e-4, atol=1e-5)
    assert_same(gradients(forward), expected)
    judged = objective.judge(torch.cat([objective.observe(objective.collate([example])) for example in examples]))
    assert judged.loss == pytest.approx(float(loss.detach()), rel=1e-4)


def test_scores_are_those_of_plain_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = forward_of(tiny.make_model(tmp_path), head=head(True))
    truth = [(0,), (0,), (1,), (1,), (0,)]
    single = Classification(forward, classes=3, several=False)
    monkeypatch.setattr(
        single, "_logits", lambda batch: torch.tensor([[2, 1, 0], [0, 2, 1], [0, 1, 0], [0, 3, 1], [1, 0, 0.0]])
    )
    judged = single.judge(single.observe(single.collate(list(labelled(truth)))))
    # class 0: 2 right, 0 wrong, 1 missed; class 1: 2 right, 1 wrong; class 2 does not occur
    assert judged.metrics == pytest.approx({"accuracy": 4 / 5, "macro_f1": (4 / 5 + 4 / 5) / 2})
    several = Classification(forward, classes=3, several=True)
    monkeypatch.setattr(several, "_logits", lambda batch: torch.tensor([[1, -1, -1], [1, 1, -1], [-1, -1, -1.0]]))
    judged = several.judge(several.observe(several.collate(list(labelled([(0,), (0, 2), ()])))))
    assert judged.metrics == pytest.approx(
        {"accuracy": 2 / 3, "macro_f1": (1 + 0 + 0) / 3, "micro_f1": 2 * 2 / (2 * 2 + 1 + 1)}
    )


def test_a_family_without_a_classification_head_is_refused(tmp_path: Path) -> None:
    import transformers

    folder = tiny.make_tokenizer(tmp_path / "granite")
    config = transformers.GraniteConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=400
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    with pytest.raises(Problem, match="no classification head"):
        forward_of(folder, head=head(False))


def test_rows_without_targets_make_a_batch_of_their_own_units(tmp_path: Path) -> None:
    forward = forward_of(tiny.make_model(tmp_path), head=head(False))
    batch = Classification(forward, classes=3, several=False).collate(list(Examples.of(list(labelled([(0,), (1,)])))))
    assert (batch.targets, batch.target_tokens) == (2, 0)
