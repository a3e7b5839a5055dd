"""One line about each run, for lists: the newest numbers, the state and why. State words and glyphs are set here."""

from __future__ import annotations

import threading
import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.run.directory import RunDirectory, disk_problem, list_runs
from engine.run.endings.causes import Ending
from engine.run.endings.unfinished import ending_of_dead, ending_of_unstarted, recorded_ending
from engine.run.liveness import Liveness, is_interrupted, is_starting, liveness
from engine.run.telemetry.events import RunState
from engine.run.telemetry.reading import FollowedRun
from engine.seal.standing import Standing, refused_since, standing_of
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
    stalled: bool = False
    """Whether nothing was heard of its trainer for much longer than usual."""
    paused: bool = False
    """Whether it waits for a person to make room on the disk; `why` says what for."""
    restarted: str = ""
    """Of a live run, why its trainer was started again, until it has saved a step since."""
    interrupted: bool = False
    """Whether nobody meant it to end, so that it may simply go on."""
    place: int | None = None
    """Its place in the line of its device while it waits, from 1."""
    seal: str = ""
    """The name of its seal's standing (see engine.seal.standing); empty where none was made, or not yet."""
    seal_broken: str = ""
    """What was found of a seal that does not keep what it promised."""
    ways_out: int = 0
    """Places in the code from which something within the seal tried to get out."""
    way_out: str = ""
    """What the newest of them tried."""
    doing: str = ""
    """What it does while it prepares, where that has words of its own: "testing the seal"."""

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, the path as text, for `--json`."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(slots=True)
class _Known:
    """What was read of a journal; `signature` is its size and modification time then."""

    signature: tuple[int, int]
    followed: FollowedRun | None
    state: RunState


_known: dict[Path, _Known] = {}
_known_lock = threading.Lock()


def summarise(run: RunDirectory) -> RunSummary:
    """The summary of a run as it is now. A journal is read once; then only what was added. Never raises for what is
    in the folder: what cannot be read makes the run failed, with the reason."""
    spec, spec_fault = _spec_of(run)
    name: RunStateName
    ending: Ending | None = None
    try:
        life = liveness(run)
        state = _state_of(run, follow=life == "live")
        if (ending := ending_of(run, life, state)) is not None:
            name, why = ending.outcome, ending.why
        else:
            name, why = _state_and_why(life, state)
    except OSError as error:
        problem = disk_problem(run.path, error)
        life, state = "died", RunState()
        name, why = "failed", f"its folder cannot be read: {error.strerror}"
        ending = Ending("failed", "input", why, problem.fix)
    newest = state.evaluations[-1] if state.evaluations else None
    standing = standing_of(state.seal, state.seal_changed)
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
        cause=ending.cause if ending is not None else "",
        remedy=ending.remedy if ending is not None else "",
        stalled=bool(state.stall) and life == "live",
        paused=state.phase == "paused" and life == "live",
        restarted=str(state.fresh_restart.get("text", "")) if life == "live" else "",
        place=_place(state) if name == "queued" else None,
        interrupted=is_interrupted(life, state.by_signal),
        seal=_seal_name(standing, state),
        seal_broken=standing.fault if standing is not None else "",
        ways_out=len(state.ways_out),
        way_out=str(state.ways_out[-1]["text"]) if state.ways_out else "",
        doing=state.phase_detail if life == "live" and state.tests_seal else "",
    )


def summaries() -> list[RunSummary]:
    """Summaries of all runs, newest first. Raises Problem when the folder of runs cannot be read."""
    return [summarise(run) for run in list_runs()]


def ending_of(run: RunDirectory, life: Liveness, state: RunState) -> Ending | None:
    """How the run ended; None when it lives or is about to. Raises OSError."""
    if life == "live":
        return None
    if life == "ended" and state.outcome is not None:
        return recorded_ending(run, state)
    if life == "never started":
        return None if is_starting(run) else ending_of_unstarted(run)
    return ending_of_dead(run, state)


def _state_and_why(life: Liveness, state: RunState) -> tuple[RunStateName, str]:
    """Of a run that has not ended."""
    if life == "never started":
        return "preparing", "its engine is starting"
    stopping = "stopping" if state.stop_requested else ""
    if state.phase == "queued" and state.outcome is None:
        return "queued", stopping or state.phase_detail
    if state.stall:
        return "running", stopping or str(state.stall["text"])
    if state.phase == "paused":
        return "running", state.phase_detail
    preparing = state.phase in ("preparing", "loading") and state.outcome is None
    return ("preparing" if preparing else "running"), stopping


def _seal_name(standing: Standing | None, state: RunState) -> str:
    """What is said of the seal in a word; nothing of one that is tested just now."""
    if standing is None or (state.tests_seal and not standing.fault):
        return ""
    return "refused" if refused_since(standing, state.cause) else standing.name


def _place(state: RunState) -> int | None:
    place = state.queued.get("place")
    return place if isinstance(place, int) else None


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
            followed = (known and known.followed) or FollowedRun(run)
            followed.catch_up()
            known = _Known(signature, followed, followed.state())
            _known[run.path] = known
        if not follow and known.followed is not None:
            # Of many ended runs only the line is kept, not the curves.
            known.followed = None
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
