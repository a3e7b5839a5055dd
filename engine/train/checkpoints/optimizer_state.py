"""An optimizer's state by the names of its parameters, and how it is put back as the optimizer wants to hold it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """The optimizer's state as tensors by "parameter|key", and its plain values by parameter."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}|{key}"] = value
            else:
                values.setdefault(name, {})[key] = value
    return tensors, values


def put_back(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    tensors: Iterable[tuple[str, torch.Tensor]],
    values: Mapping[str, dict[str, Any]],
) -> None:
    """Have `optimizer` hold the state that `optimizer_state` gave."""
    states: dict[str, dict[str, Any]] = {name: dict(plain) for name, plain in values.items()}
    for full_name, tensor in tensors:
        name, _, key = full_name.rpartition("|")
        states.setdefault(name, {})[key] = _in_place(optimizer, parameters[name], key, tensor)
    for name, state in states.items():
        optimizer.state[parameters[name]] = state


def _in_place(
    optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, key: str, tensor: torch.Tensor
) -> torch.Tensor:
    """`tensor`, the state's `key`, as the optimizer wants to hold it: beside its parameter, in memory of its own.

    The count of steps lies on the host, where torch's optimizers read it in every step; but for the fused kernel, which
    reads it on the device. What bitsandbytes pages goes into pages again: in plain memory it would fill a GPU that a
    first attempt did not.
    """
    if key == "step" and not any(group.get("fused") for group in optimizer.param_groups):
        return tensor.clone()
    if hasattr(optimizer, "get_state_buffer") and tensor.shape == parameter.shape:
        return optimizer.get_state_buffer(parameter, dtype=tensor.dtype).copy_(tensor)
    return tensor.to(parameter.device, copy=True)
