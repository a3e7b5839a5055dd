"""The optimizer and its schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from engine.spec import OptimizerSection, ScheduleSection
from profiles.problem import Problem

_BITSANDBYTES = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw": "PagedAdamW32bit",
    "paged_adamw_8bit": "PagedAdamW8bit",
}


def make_optimizer(parameters: Mapping[str, torch.nn.Parameter], spec: OptimizerSection) -> torch.optim.Optimizer:
    """The spec's optimizer over the named `parameters`; weight decay is for matrices only.

    Raises Problem for one of bitsandbytes' where that does not load.
    """
    matrices = [parameter for parameter in parameters.values() if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters.values() if parameter.ndim < 2]
    groups = [
        {"params": group, "weight_decay": decay}
        for group, decay in ((matrices, spec.weight_decay), (vectors, 0.0))
        if group
    ]
    if spec.kind == "adafactor":
        return _adafactor(groups, spec)
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


def _adafactor(groups: list[dict[str, Any]], spec: OptimizerSection) -> torch.optim.Optimizer:
    """Adafactor (Shazeer and Stern, arXiv 1804.04235) whose learning rate and weight decay mean what AdamW's do.

    The paper's step is relative to a tensor's size, which starves what begins at zero, as LoRA's B does. torch takes
    max(eps2, root mean square of the tensor) for that size: with eps2 = 1 a weight moves by the rate, and our schedule
    is the only one (the paper's cap, 1 / sqrt(step), lies above any rate in use). The second moments' decay is the
    paper's 1 - step^-0.8, which needs no correction for its start; updates are limited to a root mean square of 1.
    Clipping of the gradients stays as for AdamW. foreach off: at most one tensor's update exists at a time.
    """
    # torch holds the mean square of a matrix's gradient above eps1 and each factored one above eps1 squared: AdamW's
    # epsilon, squared, is the same bound, and 1e-18 is about the least whose square float32 still holds.
    least = max(spec.epsilon**2, 1e-18)
    return torch.optim.Adafactor(
        groups, lr=spec.learning_rate, beta2_decay=-0.8, eps=(least, 1.0), d=1.0, foreach=False
    )


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
