"""What a run does about running out of memory: one rung down the ladder, or an end that says what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.run.endings.adjusted import ladder_values
from engine.run.endings.causes import Cause, CausedProblem
from engine.run.telemetry.events import RunState
from profiles.ladder import ADJUSTABLE, WHERES, Where, ladder_text, next_rung
from profiles.problem import printable

if TYPE_CHECKING:
    from engine.spec import RunSpec

_DOING: dict[Where, str] = {
    "loading": "while the run was being loaded",
    "step": "in a training step",
    "evaluation": "while held-out loss was measured",
    "answers": "while held-out rows were answered",
    "saving": "while saving",
}


class EndOfLadder(CausedProblem):
    """Memory ran out, and there is nothing more that could be given up without changing what is learnt."""

    def __init__(self, cause: Cause, what: str):
        self.cause = cause
        super().__init__(
            "GPU memory" if cause == "gpu_memory" else "RAM",
            what,
            "Make data.sequence_length or method.rank smaller, take a leaner method (qlora needs least), or free "
            "memory that other programs hold and resume.",
        )


@dataclass(frozen=True, slots=True)
class Shortage:
    """Memory ran out at `where`; `what` is how that was said; `device` is where, when the worker told."""

    where: Where
    what: str
    device: str | None = None

    @classmethod
    def from_message(cls, fields: Mapping[str, Any]) -> Shortage:
        """As the worker sent it."""
        where = fields.get("where")
        device = fields.get("device")
        return cls(
            where if where in WHERES else "step",
            printable(fields.get("what", ""), 300),
            str(device) if device else None,
        )


def go_down(spec: RunSpec, state: RunState, shortage: Shortage, learnt_to: int | None) -> dict[str, Any]:
    """The fields of a `ladder` event: the next rung for a run in `state`, whose newest checkpoint is `learnt_to`.

    Raises EndOfLadder.
    """
    on_gpu = (shortage.device or state.plan.get("device")) == "cuda"
    values = ladder_values(spec, state.adjusted)
    rung = next_rung(values, shortage.where, on_gpu=on_gpu, learnt=learnt_to is not None)
    doing = _DOING[shortage.where]
    if rung is None:
        raise _end_of_ladder(state, f"ran out {doing} ({shortage.what})", on_gpu, learnt_to)
    changes = {field: list(change) for field, change in rung.changes.items()}
    start = f"step {learnt_to}" if learnt_to else "the start"
    return {
        "number": len(state.ladder) + 1,
        "where": shortage.where,
        "what": shortage.what,
        "changes": changes,
        "text": f"memory ran out {doing}; it goes on from {start} with {rung.why}: {ladder_text(rung)}",
    }


def _end_of_ladder(state: RunState, what: str, on_gpu: bool, learnt_to: int | None) -> EndOfLadder:
    tried = {field: value for field, value in state.adjusted.items() if field in ADJUSTABLE}
    if tried:
        given_up = ", ".join(f"{field} {value}" for field, value in tried.items())
        what += f", also with {given_up}: all that leaves the training as it is was tried"
    else:
        what += ", with settings that are the leanest of this method already"
    if learnt_to:
        what += f"; the checkpoint of step {learnt_to} remains"
    return EndOfLadder("gpu_memory" if on_gpu else "host_memory", what)
