"""bitsandbytes' layers and optimizers, and Adafactor, which fake tensors cannot run: the same bytes, nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

from engine.methods.loading import CLASS_HEAD
from engine.spec import OptimizerSection
from engine.train.optimizer import make_optimizer

# bitsandbytes' layout: a scale for 64 weights, and of those one more for 256.
_BLOCK = 64
_SCALES_BLOCK = 256
_ADAM_BLOCK = 256
_ADAM_8BIT_LEAST = 4096


class _FourBitProduct(torch.autograd.Function):
    """bitsandbytes' MatMul4Bit: nothing but the packed matrix is kept; the backward unpacks it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: FourBitLinear) -> torch.Tensor:
        ctx.layer = layer
        if layer.unpacks_in_forward:
            layer.unpacked(x)
        return x.new_empty((*x.shape[:-1], layer.out_features))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = grad_outputs
        return gradient @ ctx.layer.unpacked(gradient), None


class FourBitLinear(torch.nn.Linear):
    """bitsandbytes' Linear4bit by what it holds and makes. A Linear, so that peft wraps it."""

    def __init__(self, layer: Any, dtype: torch.dtype, *, double: bool, unpacks_in_forward: bool):
        torch.nn.Module.__init__(self)
        swapped = isinstance(layer, Conv1D)
        self.in_features, self.out_features = layer.weight.shape if swapped else layer.weight.shape[::-1]
        self.compute_dtype, self.double, self.unpacks_in_forward = dtype, double, unpacks_in_forward
        elements = layer.weight.numel()
        scales = math.ceil(elements / _BLOCK)
        packed = torch.empty((math.ceil(elements / 2), 1), dtype=torch.uint8, device="meta")
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.bias = layer.bias

        def hold(name: str, size: int, kind: torch.dtype = torch.float32) -> None:
            self.register_buffer(name, torch.empty(size, dtype=kind, device="meta"))

        hold("code", 16)
        hold("scales", scales, torch.uint8 if double else torch.float32)
        if double:
            hold("scales_code", 256)
            hold("scales_scales", math.ceil(scales / _SCALES_BLOCK))
            hold("offset", 1)

    def unpacked(self, like: torch.Tensor) -> torch.Tensor:
        """The whole matrix in the dtype of `like`; doubly quantised scales are unpacked to float32 beside it."""
        scales = like.new_empty(self.scales.shape, dtype=torch.float32) if self.double else None
        matrix = like.new_empty((self.out_features, self.in_features))
        del scales
        return matrix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = _FourBitProduct.apply(x.to(self.compute_dtype), self)
        if self.bias is not None:  # added within bitsandbytes' operation
            product = product.add_(self.bias.to(product.dtype))
        return product.to(x.dtype)


def quantise(model: Any, dtype: torch.dtype, *, double: bool, unpacks_in_forward: bool) -> None:
    """Replace the linear layers that transformers has bitsandbytes quantise: all but heads and what is tied."""
    spared = {*get_keys_to_not_convert(model), CLASS_HEAD}
    for name, module in list(model.named_modules()):
        if name not in spared and (type(module) is torch.nn.Linear or isinstance(module, Conv1D)):
            layer = FourBitLinear(module, dtype, double=double, unpacks_in_forward=unpacks_in_forward)
            model.set_submodule(name, layer)


class _HeldStates(torch.optim.Optimizer):
    """An optimizer that only makes its states, as `states` says for a parameter."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], states: Callable[..., list[torch.Tensor]]):
        super().__init__(parameters, {})
        self.states = states

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            if not self.state[parameter]:
                self.state[parameter] = dict(enumerate(self.states(parameter)))


class _FactoredStates(_HeldStates):
    """torch's Adafactor without foreach, which lets go of a tensor's update only when it has the next one's."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        parameters = self.param_groups[0]["params"]
        for group in ([each for each in parameters if each.ndim >= 2], [each for each in parameters if each.ndim < 2]):
            update = None
            for parameter in group:
                update = torch.empty_like(parameter)
            del update


def make_stand_in_optimizer(parameters: Mapping[str, torch.nn.Parameter], spec: OptimizerSection) -> Any:
    """The spec's optimizer over fake parameters: the engine's own AdamW, or what holds the same bytes."""
    learning = list(parameters.values())
    if spec.kind == "adamw":
        return make_optimizer(parameters, spec)
    if spec.kind == "adafactor":
        return _FactoredStates(learning, _factors)
    return _HeldStates(learning, _moments_8bit if "8bit" in spec.kind else _moments)


def _moments(parameter: torch.Tensor) -> list[torch.Tensor]:
    return [torch.zeros_like(parameter, dtype=torch.float32) for _ in range(2)]


def _moments_8bit(parameter: torch.Tensor) -> list[torch.Tensor]:
    if parameter.numel() < _ADAM_8BIT_LEAST:
        return _moments(parameter)
    blocks = math.ceil(parameter.numel() / _ADAM_BLOCK)
    moments = [torch.zeros_like(parameter, dtype=torch.uint8) for _ in range(2)]
    return [*moments, *(parameter.new_zeros(blocks, dtype=torch.float32) for _ in range(2))]


def _factors(parameter: torch.Tensor) -> list[torch.Tensor]:
    if parameter.ndim < 2:
        return [torch.zeros_like(parameter)]
    rows, columns = parameter.shape[-2:]
    return [parameter.new_zeros((*parameter.shape[:-2], size)) for size in (rows, columns)]
