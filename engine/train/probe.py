"""The trial step: what a run takes at its widest, measured before anything is learnt.

The optimizer's states, which every step but a run's first has beside it; forward and backward on the heaviest rows,
twice where gradients accumulate; the optimizer's step; and one batch of held-out loss. The optimizer sees gradients of
zero only, its rate is zero and its state is put back to the start, and random numbers are drawn from a copy of their
state: a run goes on as if there had been no trial. An out-of-memory here is raised like any other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from engine.train.batches import MicroBatch
from engine.train.optimizer import gradient_norm, set_rate
from engine.train.setup import Setup

# A trial is to cost less than a minute, loading and the pilot aside.
TRIAL_SECONDS = 45.0
# A pilot's forward on about so many tokens tells the pace: enough to keep a processor busy, quick for any model.
_PILOT_TOKENS = 128
# A micro-batch costs about four forwards: its own, a backward of two, and one more where layers recompute.
_FORWARDS_PER_STEP = 4


@dataclass(frozen=True, slots=True)
class Trial:
    """What the trial took. `process_bytes` is None where the system lets no peak begin anew; the other two on a CPU."""

    tokens: int
    """Tokens that went through the model at once, padding counted."""
    seconds: float
    process_bytes: int | None
    allocated_bytes: int | None
    reserved_bytes: int | None


def take_trial_step(setup: Setup, *, limit_seconds: float = TRIAL_SECONDS) -> Trial:
    """Take the trial step. Where the heaviest rows would take longer than `limit_seconds`, fewer of them are tried, and
    held-out loss is left out."""
    started = time.monotonic()
    was_training = setup.model.training
    generators = [torch.cuda.current_device()] if setup.device.type == "cuda" else []
    with torch.random.fork_rng(devices=generators):
        batch, held_out = _affordable(setup, limit_seconds)
        marked = setup.memory.mark()
        setup.model.train()
        _make_states(setup)
        for _ in range(min(2, setup.spec.train.gradient_accumulation)):
            setup.add_gradients(batch, batch.targets)
        _update_nothing(setup)
        if held_out is not None:
            _observe(setup, held_out)
        setup.model.train(was_training)
    return Trial(
        batch.input_ids.numel(),
        time.monotonic() - started,
        setup.memory.peak_since_mark_bytes() if marked else None,
        *setup.memory.allocator_peaks(),
    )


def _affordable(setup: Setup, limit_seconds: float) -> tuple[MicroBatch, MicroBatch | None]:
    """The micro-batch to learn from and the batch of held-out rows, the heaviest there are unless that takes too long.

    A GPU is quick enough for any batch that fits it.
    """
    forward = setup.forward
    heaviest = setup.plan.heaviest(padded=forward.padded)
    batch = setup.objective.collate(heaviest)
    held_out = setup.held_out_batches.widest()
    if setup.device.type == "cuda":
        return batch, held_out
    pilot = setup.plan.examples[int(np.argmin(np.abs(setup.plan.lengths - _PILOT_TOKENS)))]
    began = time.monotonic()
    _observe(setup, setup.objective.collate([pilot]))
    pace = (time.monotonic() - began) / len(pilot.input_ids)
    forwards = _FORWARDS_PER_STEP * min(2, setup.spec.train.gradient_accumulation)
    measured = held_out.input_ids.numel() if held_out is not None else 0
    if pace * (forwards * batch.input_ids.numel() + measured) <= limit_seconds:
        return batch, held_out
    room = limit_seconds / (pace * forwards)
    chosen = []
    for example in sorted(heaviest, key=lambda example: -len(example.input_ids)):
        if len(example.input_ids) <= room:
            chosen.append(example)
            room -= len(example.input_ids)
    return setup.objective.collate(chosen or [pilot]), None


def _observe(setup: Setup, batch: MicroBatch) -> None:
    setup.model.eval()
    with setup.accelerator.autocast():
        setup.objective.observe(batch.to(setup.device))


def _make_states(setup: Setup) -> None:
    """Have the optimizer make its states, which it does in its first step."""
    for parameter in setup.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    _step(setup)


def _step(setup: Setup) -> None:
    set_rate(setup.optimizer, 0.0)
    # Not accelerate's wrapper: fp16's loss scale is not to learn from this.
    setup.optimizer.step()
    setup.optimizer.zero_grad(set_to_none=True)


def _update_nothing(setup: Setup) -> None:
    """Clip the gradients and take the optimizer's step, with the memory that takes and without what it does."""
    gradient_norm(setup.parameters.values(), setup.spec.optimizer.max_gradient_norm)
    for parameter in setup.parameters.values():
        if parameter.grad is not None:
            parameter.grad.zero_()  # in fp16 they carry the loss scale, and may be no numbers
    _step(setup)
    for state in setup.optimizer.state.values():
        for name, value in state.items():
            if name.startswith("qmap"):  # bitsandbytes' table of 8-bit codes
                continue
            if isinstance(value, torch.Tensor):
                value.zero_()
            else:
                state[name] = type(value)(0)
