"""A stop that comes while a step's micro-batches are under way: the step is finished soon, or undone."""

from __future__ import annotations

import time

import torch

from engine.train.checkpoints.random_state import RandomState
from engine.train.setup import Setup
from engine.train.talk import Talk

# What a stopped step may still take. Some who ask for the end kill what is there after ten seconds (docker stop) or
# thirty (Slurm, Kubernetes), and the checkpoint takes its time, too.
PATIENCE_SECONDS = 10.0


class StepUnderWay:
    """A step that was begun: made before anything of it is, so that it can be undone as if it had never been."""

    def __init__(self, setup: Setup, talk: Talk):
        self._setup, self._talk = setup, talk
        self._random = RandomState.now()
        self._begun = time.monotonic()
        self._first_begun: float | None = None

    def is_left(self, done: int, total: int) -> bool:
        """Before each micro-batch, with `done` of `total` behind it: whether a stop was asked for and the rest would
        take longer than one waits. The step is undone then: no gradients, and every generator of random numbers where
        it stood."""
        now = time.monotonic()
        self._first_begun = self._first_begun or now
        if not self._talk.stop_asked():
            return False
        if self._setup.device.type == "cuda":
            torch.cuda.synchronize()  # the host runs ahead of the device: what was done is known only now
            now = time.monotonic()
        # Before the first: one pass over all of them may have been made, to which gradients only add.
        rest_seconds = (now - self._first_begun) / done * (total - done) if done else now - self._begun
        if rest_seconds <= PATIENCE_SECONDS:
            return False
        self._setup.optimizer.zero_grad(set_to_none=True)
        self._random.put_back()
        text = f"the stop came with {done} of a step's {total} micro-batches done; the rest would have taken "
        self._talk.send("note", text=f"{text}{rest_seconds:.0f} s, so the step was dropped, and a resume takes it anew")
        return True
