"""How a run ended that nobody wrote an end for: its engine is gone, and its last events and pid.json tell why."""

from __future__ import annotations

import json
import platform
import re

from engine.run.checkpoints.manifest import newest_step
from engine.run.directory import RunDirectory
from engine.run.endings.causes import CAUSES, Cause, Ending
from engine.run.endings.remedies import BACK_IN_LINE, remedy_for
from engine.run.processes.identity import boot_id
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.events import RunState
from engine.run.telemetry.log import last_lines
from profiles.problem import printable

# As the supervisor says it of an event; the worker's own lines, when that is gone, have no brackets there.
_NOT_JOURNALLED = re.compile(r"not journalled \((?P<reason>[^)]*)\): end ")


def ending_of_dead(run: RunDirectory, state: RunState) -> Ending:
    """The ending of a run whose engine is gone without an end event; `state` is what its journal says. Raises
    OSError when the folder cannot be read."""
    if (reason := _unwritten_end(run)) is not None:
        why = f"the run's end could not be written down ({reason}){_remains(run)}"
        return Ending("failed", "disk_full", why, remedy_for("disk_full", run))
    supervisor = recorded_processes(run).get("supervisor")
    if state.phase == "queued":
        why = "while it waited in the queue; nothing was started"
        remedy = BACK_IN_LINE
    else:
        why, remedy = f"{_moment(state)}{_remains(run)}", ""
    cause: Cause = "engine_killed"
    if supervisor is None or supervisor.boot_id == boot_id():
        what = "its engine was killed from outside"
    elif (host := _other_host(run)) is not None:
        what = f"its engine on another machine, {host}, is gone"
    else:
        cause, what = "machine_restarted", "the machine went down or was restarted"
    return Ending("failed", cause, f"{what} {why}", remedy or remedy_for(cause, run))


def recorded_ending(run: RunDirectory, state: RunState) -> Ending:
    """The ending that a run's journal has. An older finetui wrote none of its cause but the outcome."""
    assert state.outcome is not None, "asked of a run that has not ended"
    known: Cause | None = next((cause for cause in CAUSES if cause == state.cause), None)
    if known is None and state.outcome != "failed":
        known = state.outcome
    if known is None:
        fix = state.problem["fix"] if state.problem else ""
        return Ending(state.outcome, "input" if state.problem else "fault", state.why, fix)
    return Ending(state.outcome, known, state.why, state.remedy or remedy_for(known, run))


def ending_of_unstarted(run: RunDirectory) -> Ending:
    """The ending of a run that has no journal."""
    return Ending("failed", "engine_killed", "its engine never started", remedy_for("engine_killed", run))


def _moment(state: RunState) -> str:
    if state.step and state.phase in ("training", "saving", "evaluating", "paused"):
        return f"after step {state.step:,}"
    return "while it was prepared" if state.phase in ("preparing", "loading") else f"while {state.phase}"


def _remains(run: RunDirectory) -> str:
    learnt_to = newest_step(run.checkpoints)
    return f"; the checkpoint of step {learnt_to:,} remains" if learnt_to else "; nothing was saved yet"


def _other_host(run: RunDirectory) -> str | None:
    """The machine that the run was made on, where that is not this one: a home on a network disk has several."""
    try:
        host = json.loads(run.environment_path.read_bytes())["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return printable(host) if isinstance(host, str) and host and host != platform.node() else None


def _unwritten_end(run: RunDirectory) -> str | None:
    """Why the disk did not take the end of the run, as its log says."""
    found = [_NOT_JOURNALLED.match(line) for line in last_lines(run.log_path, 5)]
    return next((match["reason"] for match in reversed(found) if match), None)
