"""Layers that keep only their input and are computed again in the backward; the input may wait in RAM."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def checkpoint_layers(model: torch.nn.Module, every: int, *, offload: bool = False) -> int:
    """Recompute every `every`-th decoder layer in the backward (0: none). Returns how many layers recompute.

    Counted from the first layer in which something learns: before it autograd keeps nothing anyway. With `offload`
    the inputs of these layers wait in RAM.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    learning = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers]
    chosen = layers[learning.index(True) :: every] if every and any(learning) else []
    recompute: Callable[..., Any] = offloading_checkpoint if offload else partial(checkpoint, use_reentrant=False)
    for layer in chosen:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = recompute
    return len(chosen)


def offloading_checkpoint(layer: Callable[..., Any], hidden: torch.Tensor, *others: Any) -> Any:
    """`layer(hidden, *others)`, of which only `hidden` is kept, in RAM, and the rest computed again in the backward.

    torch's checkpoint saves its positional arguments as autograd saves any tensor, so that the hooks around it see
    them and nothing else: what is saved within it meets checkpoint's own hooks first. Random and autocast state, and
    inputs that need no gradient, are its business. Keyword arguments (masks, rotary tables) are the same tensors for
    every layer and stay where they are, and so do positional ones of another shape than `hidden`.
    """

    kind = (hidden.shape, hidden.dtype)

    def to_host(tensor: torch.Tensor) -> tuple[torch.device, torch.Tensor]:
        if (tensor.shape, tensor.dtype) != kind:
            return tensor.device, tensor
        # On the device's own stream: the copy is over before that memory can be given to another tensor.
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return tensor.device, host.copy_(tensor, non_blocking=True)

    def to_device(packed: tuple[torch.device, torch.Tensor]) -> torch.Tensor:
        device, tensor = packed
        return tensor.to(device, non_blocking=True)

    with saved_tensors_hooks(to_host, to_device):
        return checkpoint(layer, hidden, *others, use_reentrant=False)
