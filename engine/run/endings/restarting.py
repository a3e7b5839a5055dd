"""Whether a run whose worker died is started again by itself: whatever dies, the run does not.

Only for what another try may not meet again: a kill from outside, a crash of native code, a fault of the driver. Not
for what is decided by the run itself (a mistake of ours, its input, numbers that are not finite) nor for a GPU that is
gone. And only while that leads further: a second restart for the same cause needs a checkpoint or a step that was not
reached before the first, since without it each would end where the last did, and a run of many steps would load its
model for days.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from engine.run.endings.causes import Cause, Ending
from engine.run.telemetry.events import RunState

RESTARTED: frozenset[Cause] = frozenset({"worker_killed", "worker_crashed", "driver_fault"})
"""Causes after which another worker is started."""


@dataclass(slots=True)
class Restarts:
    """Those that one engine made. A person's resume begins anew: it is their judgement that it may go better now."""

    _reached: dict[Cause, tuple[int, int]] = field(default_factory=dict)
    """By cause, the newest checkpoint and the furthest step at its last restart."""

    def next(self, ending: Ending, state: RunState, learnt_to: int | None) -> dict[str, Any] | None:
        """The fields of a `restart` event for a run that ended in `state` and whose newest checkpoint is of step
        `learnt_to`; None when the run is at its end."""
        if ending.cause not in RESTARTED:
            return None
        saved = learnt_to or 0
        if (before := self._reached.get(ending.cause)) is not None and saved <= before[0] and state.step <= before[1]:
            return None
        self._reached[ending.cause] = (saved, max(state.step, before[1] if before else 0))
        return restart_fields(ending.cause, ending.why, state, learnt_to)

    def last_word(self, ending: Ending) -> Ending:
        """`ending`, which says that a restart was tried where one was."""
        if (before := self._reached.get(ending.cause)) is None:
            return ending
        how_far = f"no further than step {before[1]:,}" if before[1] else "not to a single step"
        return replace(ending, why=f"{ending.why}, and again after a restart, which came {how_far}")


def restart_fields(cause: Cause, what: str, state: RunState, learnt_to: int | None) -> dict[str, Any]:
    """The fields of a `restart` event: `what` happened, and where the next worker goes on."""
    start = f"step {learnt_to:,}" if learnt_to else "the start"
    return {
        "number": len(state.restarts) + 1,
        "cause": cause,
        "what": what,
        "step": learnt_to,
        "text": f"{what}; it goes on from {start} with a new trainer",
    }
