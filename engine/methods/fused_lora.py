"""A leaner forward for peft's LoRA linear layers: the same function, fewer passes over wide tensors.

peft computes `result + lora_B(lora_A(x)) * scaling`: the product with B, its scaling and the sum each write a tensor
as wide as the layer's output, and x is cast to the adapters' float32 once per layer and kept for the backward. Here
the scaling is applied to the narrow (tokens x rank) product and B's product is accumulated into the base's output by
one matrix call; under autocast nothing is upcast.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch.nn import functional as F


def fuse_lora(model: torch.nn.Module) -> int:
    """Give every plain LoRA linear layer of `model` the fused forward. Returns how many layers got it.

    Layers with a variant (DoRA, ...), a bias on B or several adapters keep peft's own forward.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer) and _is_plain(module)]
    for layer in layers:
        layer.forward = MethodType(_fused_forward, layer)  # type: ignore[method-assign]
    return len(layers)


def _is_plain(layer: Any) -> bool:
    return (
        len(layer.lora_A) == 1
        and not layer.lora_variant
        and isinstance(layer.base_layer, torch.nn.Linear)  # bitsandbytes' Linear4bit is one
        and all(product.bias is None for product in layer.lora_B.values())
    )


def _fused_forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if layer.disable_adapters or layer.merged or kwargs.get("adapter_names") is not None:
        return type(layer).forward(layer, x, *args, **kwargs)
    (adapter,) = layer.lora_A
    # As a matrix, since a linear layer gives more dimensions back as a view, and what is added to a view in place costs
    # two copies of its gradient in the backward.
    rows = x.flatten(0, -2)
    result = layer.base_layer(rows, *args, **kwargs)
    narrow = F.linear(layer.lora_dropout[adapter](rows), layer.lora_A[adapter].weight) * layer.scaling[adapter]
    wide = layer.lora_B[adapter].weight
    if torch.is_autocast_enabled(x.device.type):
        wide = wide.to(narrow.dtype)
    else:
        narrow = narrow.to(wide.dtype)
    if not narrow.dtype is wide.dtype is result.dtype:
        result = result + F.linear(narrow, wide).to(result.dtype)
    elif type(layer.base_layer) is torch.nn.Linear:
        # In place: a linear layer's output is not kept for its backward, so nothing is overwritten that is needed.
        result.addmm_(narrow, wide.t())
    else:
        # bitsandbytes' product is a custom function, whose output must not be written to when it comes as a view.
        result = torch.addmm(result, narrow, wide.t())
    return result.unflatten(0, x.shape[:-1])
