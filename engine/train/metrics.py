"""A step's numbers on their way from the device to the journal, without making the device wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

Report = Callable[[dict[str, Any], float, float, float, list[float]], None]
"""Told (fields, loss, gradient norm, seconds, summed losses of each data source if there are several) of one step."""

# The first steps choose kernels and fill caches; fewer than three others say nothing of a pace.
_WARMING_STEPS = 2
_LEAST_STEPS = 3


class StepMetrics:
    """Holds the last step's loss and gradient norm until the next step was queued, then reports them.

    On a GPU the copy to the host is asynchronous and is read one step later; on a CPU a step is reported at once.
    """

    def __init__(self, device: torch.device, report: Report):
        self._report = report
        self._waits = device.type == "cuda"
        self._pending: tuple[dict[str, Any], torch.Tensor, float] | None = None
        self._copied: torch.cuda.Event | None = None
        self._started_at = time.monotonic()
        self._steps, self._tokens, self._targets, self._seconds = 0, 0, 0, 0.0

    @property
    def pace(self) -> tuple[float, float] | None:
        """Tokens per second, and the share of them that carried loss, without the steps that warm up; None at first."""
        if self._steps < _WARMING_STEPS + _LEAST_STEPS or self._seconds <= 0:
            return None
        return self._tokens / self._seconds, self._targets / self._tokens

    def start(self) -> None:
        """Begin timing a step here: what came before (a measurement, a save) is not training time."""
        self._started_at = time.monotonic()

    def record(
        self, fields: dict[str, Any], loss: torch.Tensor, norm: torch.Tensor, source_sums: torch.Tensor | None = None
    ) -> None:
        """Take the numbers of a step just queued: on the device `loss` and `norm`, scalars, and `source_sums`,
        (sources,)."""
        now = time.monotonic()
        seconds, self._started_at = now - self._started_at, now
        values = torch.stack((loss.float(), norm.float())).double()
        if source_sums is not None:
            values = torch.cat((values, source_sums))
        if not self._waits:
            self._tell(fields, values, seconds)
            return
        on_host = torch.empty(len(values), dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        previous, previous_copied = self._pending, self._copied
        self._pending, self._copied = (fields, on_host, seconds), copied
        self._send(previous, previous_copied)

    def flush(self) -> None:
        """Report what is held back, waiting for the device."""
        pending, copied = self._pending, self._copied
        self._pending = self._copied = None
        self._send(pending, copied)

    def _send(self, pending: tuple[dict[str, Any], torch.Tensor, float] | None, copied: Any) -> None:
        if pending is None:
            return
        copied.synchronize()
        fields, values, seconds = pending
        self._tell(fields, values, seconds)

    def _tell(self, fields: dict[str, Any], values: torch.Tensor, seconds: float) -> None:
        self._steps += 1
        if self._steps > _WARMING_STEPS:
            self._tokens, self._targets = self._tokens + fields["tokens"], self._targets + fields["target_tokens"]
            self._seconds += seconds
        loss, norm, *source_sums = values.tolist()
        self._report(fields, loss, norm, seconds, source_sums)
