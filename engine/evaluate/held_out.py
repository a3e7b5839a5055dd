"""Held-out loss: the mean cross-entropy per target token on rows that are never trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from engine.train.batches import MicroBatch
from engine.train.forward import Forward


def held_out_loss(
    forward: Forward,
    batches: Sequence[MicroBatch],
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float | None:
    """Mean loss per target token in nats over `batches`; None when there are none. Leaves the model in its mode."""
    if not batches:
        return None
    was_training = forward.model.training
    forward.model.eval()
    total = torch.zeros((), dtype=torch.float64, device=device)
    try:
        for done, batch in enumerate(batches, start=1):
            total += forward.summed_loss(batch.to(device))
            progress(done, len(batches))
    finally:
        forward.model.train(was_training)
    return float(total) / sum(batch.targets for batch in batches)
