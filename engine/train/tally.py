"""What is told of each data source: its share of an epoch, and its losses, which are summed on the device so that
nothing waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.spec import DataSection
from engine.train.step_plan import StepPlan

# A source's loss is that of its last units, weighted by e^(-steps / 20): about as many steps as the pace is taken over.
_KEPT_OF_A_STEP = 0.95


class SourceTally:
    """Sums of units' losses by source, over some micro-batches."""

    def __init__(self, sources: int, device: torch.device):
        self._counts = np.zeros(sources, dtype=np.int64)
        self._sums = torch.zeros(sources, dtype=torch.float64, device=device)

    def add(self, sources: NDArray[np.int64], each: torch.Tensor) -> None:
        """Add the loss of each unit, (units,) on the device, given the source of each, (units,)."""
        self._counts += np.bincount(sources, minlength=len(self._counts))
        indices = torch.from_numpy(sources)
        if each.device.type != "cpu":
            indices = indices.pin_memory().to(each.device, non_blocking=True)
        self._sums.index_add_(0, indices, each.double())

    @property
    def counts(self) -> NDArray[np.int64]:
        """Units of each source, (sources,)."""
        return self._counts

    @property
    def sums(self) -> torch.Tensor:
        """Summed losses of each source, (sources,) on the device."""
        return self._sums

    def means(self) -> tuple[float | None, ...]:
        """Mean loss of each source, None for one without units. Waits for the device."""
        return _means(self._sums.tolist(), self._counts)


class RecentLosses:
    """Each source's mean training loss over the last steps: a source that is seldom drawn has one all the same."""

    def __init__(self, sources: int):
        self._sums, self._counts = np.zeros(sources), np.zeros(sources)

    def add(self, sums: Sequence[float], counts: NDArray[np.integer]) -> None:
        """Add a step's summed losses and units of each source."""
        self._sums = _KEPT_OF_A_STEP * self._sums + sums
        self._counts = _KEPT_OF_A_STEP * self._counts + counts

    def means(self) -> tuple[float | None, ...]:
        """Mean loss of each source; None for one that did not come yet."""
        return _means(self._sums.tolist(), self._counts)


def source_facts(data: DataSection, plan: StepPlan) -> list[dict[str, Any]]:
    """What a `plan` event tells of each data source; nothing of a single one."""
    if len(data.train) < 2:
        return []
    count = len(data.train)
    examples = plan.examples
    rows = np.bincount(examples.sources, minlength=count)
    tokens = np.bincount(examples.sources, weights=examples.lengths, minlength=count)
    repeats = np.asarray(plan.repeats or (1.0,) * count)
    shares = tokens * repeats / (tokens @ repeats)
    names = [path.name for path in data.paths]
    return [
        {
            "name": name if names.count(name) == 1 else str(path),
            "rows": int(rows[index]),
            "tokens": int(tokens[index]),
            "repeats": float(repeats[index]),
            "share": float(shares[index]),
        }
        for index, (name, path) in enumerate(zip(names, data.paths, strict=True))
    ]


def _means(sums: Sequence[float], counts: NDArray) -> tuple[float | None, ...]:
    return tuple(sum_ / count if count else None for sum_, count in zip(sums, counts.tolist(), strict=True))
