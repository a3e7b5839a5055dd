"""One line about each run, for lists: the newest numbers, the state and why. State words and glyphs are set here."""

from __future__ import annotations

import threading
import time
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.run.directory import RunDirectory, list_runs
from engine.run.launch import liveness
from engine.run.telemetry.events import RunState
from engine.run.telemetry.folding import Folding, open_journal
from engine.run.telemetry.journal import JournalTail
from engine.run.telemetry.log import ATTEMPT_MARK, last_lines
from profiles.problem import printable

RunStateName = Literal["running", "queued", "preparing", "finished", "stopped", "failed"]

STATE_GLYPHS: dict[RunStateName, str] = {
    "running": "●",
    "queued": "◌",
    "preparing": "◐",
    "finished": "✓",
    "stopped": "■",
    "failed": "✗",
}
ASCII_STATE_GLYPHS: dict[RunStateName, str] = {
    "running": "*",
    "queued": "o",
    "preparing": "~",
    "finished": "+",
    "stopped": "#",
    "failed": "x",
}

# Between a run's folder and its engine's first event lies a moment in which it is neither live nor dead.
_STARTING_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in one line. Times are unix seconds; `model` and `data` are the names of the folder and the files."""

    name: str
    path: Path
    spec_name: str
    model: str
    data: str
    method: str
    state: RunStateName
    why: str
    step: int
    planned_steps: int | None
    loss: float | None
    held_out_loss: float | None
    seconds_left: float | None
    started_at: float | None
    last_event_at: float | None
    objective: str = "next_token"
    cause: str = ""
    """One of engine.run.endings.causes, once the run ended."""
    remedy: str = ""
    """What to do about it."""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, the path as text, for `--json`."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(slots=True)
class _Known:
    """What was read of a journal; `signature` is its size and modification time then."""

    signature: tuple[int, int]
    follower: tuple[Folding, JournalTail] | None
    state: RunState


_known: dict[Path, _Known] = {}
_known_lock = threading.Lock()


def summarise(run: RunDirectory) -> RunSummary:
    """The summary of a run as it is now. A journal is read once; then only what was added. Never raises for what is
    in the folder: what cannot be read makes the run failed, with the reason."""
    spec, spec_fault = _spec_of(run)
    name: RunStateName
    try:
        life = liveness(run)
        state = _state_of(run, follow=life == "live")
    except OSError as error:
        life, state = "died", RunState()
        name, why = "failed", f"its folder cannot be read: {error.strerror}"
    else:
        name, why = _state_and_why(run, life, state)
    newest = state.evaluations[-1] if state.evaluations else None
    train = spec.get("data", {}).get("train")
    return RunSummary(
        name=run.name,
        path=run.path,
        spec_name=run.spec_name,
        model=Path(str(spec.get("model", {}).get("path", ""))).name,
        data=", ".join(map(_data_name, train)) if isinstance(train, list) else "",
        method=str(spec.get("method", {}).get("kind", "")),
        state=name,
        why=why or spec_fault,
        step=state.step,
        planned_steps=state.planned_steps,
        loss=state.steps[-1].loss if state.steps else None,
        held_out_loss=newest.held_out_loss if newest else None,
        seconds_left=state.seconds_left if life == "live" else None,
        started_at=state.started_at,
        last_event_at=state.last_event_at,
        objective=str(spec.get("objective", {}).get("kind", "next_token")),
        cause=state.cause if life != "live" else "",
        remedy=state.remedy if life != "live" else "",
    )


def summaries() -> list[RunSummary]:
    """Summaries of all runs, newest first. Raises Problem when the folder of runs cannot be read."""
    return [summarise(run) for run in list_runs()]


def _state_and_why(run: RunDirectory, life: str, state: RunState) -> tuple[RunStateName, str]:
    if life == "live":
        stopping = "stopping" if state.stop_requested else ""
        if state.phase == "queued" and state.outcome is None:
            return "queued", stopping or state.phase_detail
        if state.phase == "paused":
            return "running", state.phase_detail
        preparing = state.phase in ("preparing", "loading") and state.outcome is None
        return ("preparing" if preparing else "running"), stopping
    if life == "ended" and state.outcome is not None:
        return state.outcome, state.why
    if life == "never started":
        if time.time() - run.spec_path.stat().st_mtime < _STARTING_SECONDS:
            return "preparing", "its engine is starting"
        return "failed", "its engine never started"
    last = last_lines(run.log_path, 1)
    if not last or last[0].startswith(ATTEMPT_MARK):
        return "failed", "the engine died without a word"
    return "failed", f"the engine died: {last[0]}"


def _state_of(run: RunDirectory, follow: bool) -> RunState:
    """The fold of the run's journal, from memory where that is as it was. Only a live run's fold is kept whole."""
    try:
        stat = run.events_path.stat()
    except FileNotFoundError:
        return RunState()
    signature = (stat.st_size, stat.st_mtime_ns)
    with _known_lock:
        known = _known.get(run.path)
        if known is None or known.signature != signature:
            folding, tail = (known and known.follower) or open_journal(run)
            while events := tail.read():
                for event in events:
                    folding.add(event)
            known = _Known(signature, (folding, tail), folding.state())
            _known[run.path] = known
        if not follow and known.follower is not None:
            # Of many ended runs only the line is kept, not the curves.
            known.follower = None
            known.state = replace(known.state, steps=known.state.steps[-1:], samples=())
        return known.state


def _data_name(source: Any) -> str:
    """The name of a file of data.train, which stands there as its path or as a table with how to read it."""
    return Path(str(source.get("path", "") if isinstance(source, dict) else source)).name


def _spec_of(run: RunDirectory) -> tuple[dict[str, Any], str]:
    """The tables of spec.toml, not validated: a list shows also what an older or newer finetui wrote."""
    try:
        values = tomllib.loads(run.spec_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {}, f"spec.toml cannot be read: {printable(error)}"
    return {name: value for name, value in values.items() if isinstance(value, dict)}, ""
