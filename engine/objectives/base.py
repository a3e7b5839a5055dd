"""What every objective answers: how rows become a micro-batch, what is minimised over it, and what it says of held-out
rows.

A unit is what the loss is a mean over: a target token, a pair, a text. Losses of a step are summed over its
micro-batches and divided by the step's units, so that 4 x 1 and 1 x 4 are the same step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch

from engine.data.examples import Example
from engine.train.batches import MicroBatch
from engine.train.forward import Forward

Autocast = Callable[[], AbstractContextManager[Any]]
Batch = TypeVar("Batch", bound=MicroBatch)
Keep = Callable[[int, Callable[[], None]], None]
"""Told how many bytes will be written, calls what writes them once there is room on the disk."""


@dataclass(frozen=True)
class Judged:
    """What held-out rows say. `loss` is the mean over units; `metrics` have the names that are shown to a person."""

    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    each: torch.Tensor | None = None
    """Every unit's loss, where `observe` could not tell it."""


def of_units(kind: type[Batch], batch: MicroBatch, units: int, **more: Any) -> Batch:
    """`batch` as a `kind` of batch whose loss is a mean over `units`, with the fields that `kind` adds."""
    known = {each.name: getattr(batch, each.name) for each in fields(batch)}
    return kind(**{**known, "units": units, **more})


class Objective(ABC, Generic[Batch]):
    """One thing to minimise over one model (`forward`). Its methods never wait for the device unless they say so."""

    unit: ClassVar[str]
    """What the loss is a mean over, in the singular."""
    knows_each: ClassVar[bool] = True
    """Whether `observe` can tell every unit's loss; else `judge` does."""

    def __init__(self, forward: Forward):
        self.forward = forward

    @abstractmethod
    def collate(self, examples: Sequence[Example]) -> Batch:
        """One micro-batch of `examples`, in the layout of the model's attention, with what its loss needs."""

    def refer(
        self,
        folder: Path,
        *,
        token_budget: int,
        device: torch.device,
        autocast: Autocast,
        progress: Callable[[int, int], None],
        keep: Keep,
    ) -> None:
        """Learn what is to be known of the model as it is before training, and keep it in `folder` for a resume."""

    def begin_step(self, batches: list[Batch], autocast: Autocast) -> list[Batch]:
        """The micro-batches of one optimizer step, with what each has to know of the others."""
        return batches

    @abstractmethod
    def loss(self, batch: Batch, *, scale: float, each: torch.Tensor | None = None) -> torch.Tensor:
        """Sum of the units' losses times `scale`, a float32 scalar with gradients.

        `each`, float32 (units,), is filled with every unit's own loss, unscaled.
        """

    @abstractmethod
    def observe(self, batch: Batch, each: torch.Tensor | None = None) -> torch.Tensor:
        """What `judge` needs of a batch of held-out rows, (rows, numbers), without gradients; `each` as in `loss`."""

    @abstractmethod
    def judge(self, observed: torch.Tensor) -> Judged:
        """The verdict on what was observed of all batches, one after another, on the host."""
