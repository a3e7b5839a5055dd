"""Examples made by hand, and a tiny model's forward, for the tests of objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.offline import set_offline

set_offline()

import torch  # noqa: E402

from engine.data.examples import Example, Examples  # noqa: E402
from engine.methods.heads import LANGUAGE, Head  # noqa: E402
from engine.methods.loading import load_base  # noqa: E402
from engine.methods.trainable import make_trainable  # noqa: E402
from engine.spec import MethodSection  # noqa: E402
from engine.train.forward import Forward  # noqa: E402

PADDING_ID = 3


def tokens(generator: np.random.Generator, longest: int = 12) -> np.ndarray:
    return generator.integers(4, 300, size=int(generator.integers(2, longest))).astype(np.int32)


def answered(generator: np.random.Generator, prompt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A prompt with an answer: (ids, trained)."""
    answer = tokens(generator, 7)
    return np.concatenate([prompt, answer]), np.arange(len(prompt) + len(answer)) >= len(prompt)


def pairs(count: int, seed: int = 0, first_row: int = 0) -> Examples:
    generator, made = np.random.default_rng(seed), []
    for row in range(first_row, first_row + count):
        prompt = tokens(generator)
        (chosen, learnt), (rejected, learnt_too) = answered(generator, prompt), answered(generator, prompt)
        ids, trained = np.concatenate([chosen, rejected]), np.concatenate([learnt, learnt_too])
        made.append(Example(ids, trained, row, parts=(len(chosen), len(rejected))))
    return Examples.of(made)


def feedback(count: int, seed: int = 0, first_row: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    return Examples.of(
        [
            Example(*answered(generator, tokens(generator)), row, labels=(row % 2,))
            for row in range(first_row, first_row + count)
        ]
    )


def labelled(labels: list[tuple[int, ...]], seed: int = 0) -> Examples:
    generator = np.random.default_rng(seed)
    texts = [tokens(generator) for _ in labels]
    return Examples.of(
        [
            Example(text, np.zeros(len(text), dtype=np.bool_), row, labels=classes)
            for row, (text, classes) in enumerate(zip(texts, labels, strict=True))
        ]
    )


def similar(negatives: list[int], seed: int = 0) -> Examples:
    """Pairs of texts, with so many negatives each."""
    generator, made = np.random.default_rng(seed), []
    for row, count in enumerate(negatives):
        texts = [tokens(generator) for _ in range(2 + count)]
        ids = np.concatenate(texts)
        made.append(Example(ids, np.zeros(len(ids), dtype=np.bool_), row, parts=tuple(map(len, texts))))
    return Examples.of(made)


def forward_of(
    model: Path, *, method: str = "full", head: Head = LANGUAGE, attention: str = "auto", **fields: Any
) -> Forward:
    """A model that learns by `method`, without the dropout of training, as engine.train.setup makes it."""
    torch.manual_seed(0)
    base = load_base(model, dtype=torch.float32, device="cpu", head=head)
    trained = make_trainable(base, MethodSection(kind=method, rank=4, **fields))
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)  # it begins as zero, and the matrices under it would get no gradient
    return Forward(trained.eval(), attention=attention, compute=torch.float32, loss_chunk=16)


def gradients(forward: Forward) -> dict[str, torch.Tensor]:
    """The gradients there are, which are dropped."""
    found = {}
    for name, parameter in forward.model.named_parameters():
        if parameter.grad is not None:
            found[name], parameter.grad = parameter.grad, None
    return found


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert found
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-5, rtol=1e-3, msg=lambda text, name=name: name + text)
