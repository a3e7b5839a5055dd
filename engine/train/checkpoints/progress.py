"""Where training stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Where training stands, besides its tensors."""

    step: int
    tokens_seen: int
    best_held_out_loss: float | None
    best_step: int | None
    loss_scale: dict[str, Any] | None = None
    """State of fp16's dynamic loss scale; None in other precisions."""

    @property
    def handed_over_step(self) -> int:
        """The step whose weights are handed over: the best on held-out rows, else the last."""
        return self.best_step or self.step
