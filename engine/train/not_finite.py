"""A loss that is no finite number: told with its step and the rows of its batch, and how to go on from before it.

Which row it was cannot be found out afterwards: the weights that made the loss are gone, since the step's update has
spoilt them before a GPU's numbers are read. So the rows of the step are named, those of the micro-batch first whose
loss it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from engine.data.examples import Example
from engine.data.rows import places_text
from engine.run.checkpoints.manifest import checkpoint_path
from engine.run.directory import RunDirectory
from engine.run.endings.causes import Ending
from engine.run.endings.remedies import how_to_go_on
from engine.train.checkpoints.finite import NotFiniteError
from engine.train.setup import Setup

# Of a step's rows: as many in the sentence as a line holds, and in the event as a person may look through.
_ROWS_SAID, _ROWS_TOLD = 6, 200
_LOWER = 3
"""By what the learning rate is divided: the step on the usual scale of rates (1, 3, 10)."""


class NotANumberError(Exception):
    """The loss of a step, or the norm of its gradient, was no finite number."""

    def __init__(self, step: int, what: str, poisoned: Sequence[int]):
        """`what` it was of `step` (from 1): "loss" or "gradient norm"; `poisoned`: the micro-batches whose loss it
        was."""
        super().__init__(step, what)
        self.step, self.what, self.poisoned = step, what, poisoned


def require_numbers(step: int, loss: float, norm: float, micro_losses: Sequence[torch.Tensor], *, scaled: bool) -> None:
    """Raises NotANumberError where `loss` or the gradient's `norm` is none; `micro_losses` are scalars on the device.
    `scaled`: an infinite norm is fp16's loss scale finding its level, and that step was skipped."""
    if math.isfinite(loss) and (scaled or math.isfinite(norm)):
        return
    poisoned = [number for number, each in enumerate(micro_losses) if not math.isfinite(each.item())]
    raise NotANumberError(step, "gradient norm" if math.isfinite(loss) else "loss", poisoned)


def not_finite_ending(
    error: NotANumberError | NotFiniteError,
    setup: Setup,
    run: RunDirectory,
    *,
    step: int,
    saved_step: int | None,
    began_at: int,
) -> tuple[dict[str, Any], Ending]:
    """The fields of the `not_finite` event, and the end of a run that `error` stopped. `step` is the last one that was
    taken, `saved_step` that of the newest checkpoint, which is from before, `began_at` where this process began."""
    if isinstance(error, NotANumberError):
        step, what, said = error.step, error.what, f"the {error.what} was not a number at step {error.step:,}"
    else:
        what, said = error.tensor, f"{error.tensor} was no longer finite after step {step:,}"
    first, others = _batch(setup, step, error.poisoned if isinstance(error, NotANumberError) else ())
    rate = setup.spec.optimizer.learning_rate
    lower = float(f"{rate / _LOWER:.2g}")
    fields = {
        "step": step,
        "what": what,
        "rows": [*_places(setup, first, _ROWS_TOLD), *(f"and {each}" for each in _places(setup, others, _ROWS_TOLD))],
        "checkpoint_step": saved_step,
        "learning_rate": rate,
        "lower_rate": lower,
    }
    if rows := "; ".join(_places(setup, first, _ROWS_SAID)):
        said += f", which learnt from {rows}"
    return fields, Ending("failed", "not_finite", said, _remedy(setup, run, step, saved_step, began_at, lower))


def _remedy(setup: Setup, run: RunDirectory, step: int, saved_step: int | None, began_at: int, lower: float) -> str:
    if step == 1:
        return (
            "The learning rate is not to blame, since nothing was learnt before: look at these rows, check the base "
            f"with `finetui inspect {setup.spec.model.path}`, or start a new run with another model.dtype."
        )
    option = f" --learning-rate {lower:g}"
    if saved_step == began_at == step - 1:
        spoilt, again = checkpoint_path(run.checkpoints, began_at), f"`finetui resume {run.name}{option}`"
        return f"The checkpoint of step {began_at:,} is spoilt already: move {spoilt} away, then {again}."
    return f"Look at these rows, and {how_to_go_on(run.name, saved_step, option)}, a third of the rate that it had."


def _batch(setup: Setup, step: int, poisoned: Sequence[int]) -> tuple[list[Example], list[Example]]:
    """The examples of `step` (from 1): those of the micro-batches `poisoned`, or else all; and the others."""
    if step < 1:
        return [], []
    batches = setup.plan.micro_batches(step - 1)
    chosen = set(poisoned) or set(range(len(batches)))
    return (
        [example for number, batch in enumerate(batches) if number in chosen for example in batch],
        [example for number, batch in enumerate(batches) if number not in chosen for example in batch],
    )


def _places(setup: Setup, examples: Sequence[Example], most: int) -> list[str]:
    """Where a person finds their rows; nothing where the prepared data cannot be read any more."""
    try:
        return places_text(setup.dataset.places_of(example.row for example in examples), most)
    except OSError:
        return []
