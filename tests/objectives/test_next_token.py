"""The chunked loss is the plain one, gradients included, whatever the chunk and the head."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from engine.objectives.cross_entropy import chunked_loss, summed_loss


@settings(max_examples=30, deadline=None)
@given(
    targets=st.integers(1, 70),
    chunk=st.integers(16, 80),
    vocabulary=st.integers(2, 50),
    frozen=st.booleans(),
    capped=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_value_and_gradients_are_those_of_plain_cross_entropy(targets, chunk, vocabulary, frozen, capped, seed):
    torch.manual_seed(seed)
    linear = torch.nn.Linear(12, vocabulary).requires_grad_(not frozen)
    labels = torch.randint(vocabulary, (targets,))
    scale = 1 / targets

    def head(states: torch.Tensor) -> torch.Tensor:
        logits = linear(states)
        return torch.tanh(logits / 3) * 3 if capped else logits

    plain_states = torch.randn(targets, 12, requires_grad=True)
    states = plain_states.detach().clone().requires_grad_()
    plain = F.cross_entropy(head(plain_states), labels, reduction="sum") * scale
    plain_weights = torch.autograd.grad(
        plain, (plain_states, *([] if frozen else linear.parameters())), retain_graph=True
    )
    weights = [] if frozen else list(linear.parameters())
    # doubled, as fp16's loss scale would: the gradient that comes in must be used
    chunked = chunked_loss(states, labels, head, weights, chunk=chunk, scale=scale)
    (2 * chunked).backward()

    assert float(chunked) == pytest.approx(float(plain), abs=1e-5)
    found = (states.grad, *(weight.grad for weight in weights))
    for gradient, expected in zip(found, plain_weights, strict=True):
        torch.testing.assert_close(gradient, 2 * expected, atol=1e-5, rtol=1e-4)
    without = summed_loss(states.detach(), labels, head, chunk=chunk)
    assert float(without) * scale == pytest.approx(float(plain), abs=1e-5)
