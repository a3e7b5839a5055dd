"""A training step compiled by torch, whose kernels a C++ compiler makes: prints the loss with and without."""

import json

import torch


def loss(weights: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(rows @ weights).square().mean()


torch.manual_seed(0)
weights, rows = torch.randn(16, 8, requires_grad=True), torch.randn(4, 16)
plain = loss(weights, rows)
compiled = torch.compile(loss)(weights, rows)
compiled.backward()
print(json.dumps({"plain": plain.item(), "compiled": compiled.item(), "gradient": weights.grad.abs().sum().item()}))
