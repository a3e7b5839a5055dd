"""How a run can end, each cause told apart: what happened in one sentence, and what to do about it in another."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from engine.run.telemetry.events import Outcome
from profiles.problem import Problem

Cause = Literal[
    "finished",
    "stopped",
    "gpu_memory",
    "host_memory",
    "disk_full",
    "not_finite",
    "device_lost",
    "driver_fault",
    "machine_restarted",
    "engine_killed",
    "worker_killed",
    "worker_crashed",
    "changed",
    "unsealed",
    "input",
    "fault",
]
"""finished, stopped: as planned, or as a person asked.
gpu_memory, host_memory: the ladder's end was reached.
disk_full: a file that the run cannot do without was not written.
not_finite: a loss or its gradient was no finite number.
device_lost: a GPU fell off the bus, or its memory is broken.
driver_fault: the driver reset a GPU, or a kernel on it failed.
machine_restarted: the machine went down or was restarted while the run lived.
engine_killed: the supervisor was ended from outside. worker_killed: the trainer was, again and again.
worker_crashed: native code brought the trainer down, again and again.
changed: data, settings, libraries or base weights are not those of the checkpoint, and nobody said to go on.
unsealed: a layer of the seal that the run requires does not hold on this machine, or was seen through.
input: something that a person gave cannot be used: data, model, settings.
fault: a mistake of finetui's own."""

CAUSES: tuple[Cause, ...] = get_args(Cause)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, for its `end` event and for whoever looks. `why` and `remedy` are each one sentence at most. Of
    one that was stopped `why` is at first only what follows on who stopped it ("after step 12"), which a trainer need
    not know; `Aftermath.write_end` makes it the whole sentence."""

    outcome: Outcome
    cause: Cause
    why: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fields of the `end` event that tell it."""
        return asdict(self)


class CausedProblem(Problem):
    """A problem that ends a run for a cause of its own: any other ends it as "input"."""

    cause: Cause


class ChangedSince(CausedProblem):
    """A run is not to go on from its checkpoint, since things changed and nobody said to go on all the same."""

    cause = "changed"
