"""The optimizer and its schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch

from engine.spec import OptimizerSection, ScheduleSection
from profiles.problem import Problem

_BITSANDBYTES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw": "PagedAdamW32bit",
    "paged_adamw_8bit": "PagedAdamW8bit",
}


def make_optimizer(parameters: Mapping[str, torch.nn.Parameter], spec: OptimizerSection) -> torch.optim.Optimizer:
    """AdamW over the named `parameters`; weight decay is for matrices only. Raises Problem without bitsandbytes."""
    matrices = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    groups = [
        {"params": group, "weight_decay": decay}
        for group, decay in ((matrices, spec.weight_decay), (vectors, 0.0))
        if group
    ]
    options = {"lr": spec.learning_rate, "betas": (spec.beta1, spec.beta2), "eps": spec.epsilon}
    if spec.kind == "adamw":
        # fused: one pass over each tensor, and no gradient-sized temporary as foreach makes
        return torch.optim.AdamW(groups, fused=True, **options)
    try:
        import bitsandbytes
    except (ImportError, RuntimeError, OSError) as error:
        raise Problem(
            "optimizer.kind",
            f"{spec.kind} needs bitsandbytes, which does not load here ({error})",
            'Use "adamw".',
        ) from error
    return getattr(bitsandbytes.optim, _BITSANDBYTES[spec.kind])(groups, **options)


def rate_share(step: int, total_steps: int, spec: ScheduleSection) -> float:
    """Share of the learning rate that optimizer step `step` (from 0) uses.

    It rises linearly over the warm-up, from the first step on, and then follows the schedule down to its minimum.
    """
    warmup = math.ceil(spec.warmup_share * total_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if spec.kind == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total_steps - warmup)
    falling = (1 + math.cos(math.pi * progress)) / 2 if spec.kind == "cosine" else 1 - progress
    return spec.minimum_share + (1 - spec.minimum_share) * falling


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use the learning rate `rate` in the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def gradient_norm(parameters: Iterable[torch.nn.Parameter], limit: float) -> torch.Tensor:
    """Global L2 norm of the gradients, a scalar on their device; they are scaled down to `limit` unless it is 0."""
    return torch.nn.utils.clip_grad_norm_(list(parameters), limit or math.inf)
