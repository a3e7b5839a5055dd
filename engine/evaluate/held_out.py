"""Held-out loss and what else an objective says of rows that are never trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from engine.objectives.base import Judged, Objective
from engine.train.batches import MicroBatch
from engine.train.tally import SourceTally


def judge_held_out(
    objective: Objective[Any],
    batches: Sequence[MicroBatch],
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
    tally: SourceTally | None = None,
) -> Judged | None:
    """The objective's verdict on `batches`; None when there are none. Leaves the model in its mode.

    `tally` is added every unit's loss; `progress` gets the batches done and how many there are.
    """
    if not batches:
        return None
    model = objective.forward.model
    was_training = model.training
    model.eval()
    observed: list[torch.Tensor] = []
    sources: list[np.ndarray] = []
    known = tally is not None and objective.knows_each
    try:
        for done, batch in enumerate(batches, start=1):
            each = torch.empty(batch.targets, device=device) if known else None
            observed.append(objective.observe(batch.to(device), each))
            if tally is not None and each is not None:
                tally.add(batch.unit_sources, each)
            elif tally is not None:
                sources.append(batch.unit_sources)
            progress(done, len(batches))
    finally:
        model.train(was_training)
    judged = objective.judge(torch.cat(observed).cpu())
    if tally is not None and judged.each is not None:
        tally.add(np.concatenate(sources), judged.each.to(device))
    return judged
