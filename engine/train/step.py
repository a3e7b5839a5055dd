"""One optimizer step, in the two parts that follow each other: gradients of a micro-batch, then the update.

The recipe, the probe and the replay take their steps through here, so that what is measured is what trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch

from engine.train.optimizer import gradient_norm


def forward_backward(
    loss_of: Callable[[], torch.Tensor],
    *,
    autocast: Callable[[], AbstractContextManager[Any]],
    backward: Callable[[torch.Tensor], None],
) -> torch.Tensor:
    """Add the gradients of the loss that `loss_of` makes of a micro-batch to those there are. Returns it, detached."""
    with autocast():
        loss = loss_of()
    backward(loss)
    return loss.detach()


def update(
    parameters: Iterable[torch.nn.Parameter],
    stepper: Any,
    *,
    limit: float,
    unscale: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Take one step of `stepper` (an optimizer) with the gradients clipped to `limit`, and drop them.

    `unscale` undoes fp16's loss scale. Returns the gradients' norm before clipping, a scalar on their device.
    """
    if unscale is not None:
        unscale()
    norm = gradient_norm(parameters, limit)
    stepper.step()
    stepper.zero_grad(set_to_none=True)
    return norm
