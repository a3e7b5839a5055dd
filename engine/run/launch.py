"""Starting a run so that it outlives whoever started it, resuming one, stopping one, and telling whether one lives."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any, Literal

from engine.modules import module_command, module_environment
from engine.run.control import ask
from engine.run.directory import RunDirectory, create_run, runs_root
from engine.run.disk_room import require_disk
from engine.run.endings.adjusted import adjusted_spec
from engine.run.processes.lock import lock_holder
from engine.run.processes.recorded import recorded_processes
from engine.run.sizes import size_text
from engine.run.start import Start
from engine.run.telemetry.folding import read_state
from engine.run.telemetry.journal import last_event
from engine.run.telemetry.log import last_lines
from engine.run.waiting.room import room_for
from profiles.problem import Problem

if TYPE_CHECKING:
    from engine.spec import RunSpec

Liveness = Literal["live", "ended", "died", "never started"]

# A supervisor is ready in a fraction of a second, or, after another was killed, once that one's worker has ended.
_START_SECONDS = 120


def launch(spec: RunSpec, wait: bool = False, after: str | None = None) -> RunDirectory:
    """Make a run and start its engine, detached: it goes on when this process, its terminal or its login ends.

    With `wait` the engine starts the training once its memory is free, the run that waits longest first, and with
    `after` not before the run of that name has ended. Without, it starts at once, whatever is free: ask `room_for` and
    tell. Returns once the engine is ready. Raises Problem when the run cannot be made, its disk has surely no room for
    it, its memory can never be free here, or the engine does not start."""
    require_disk(spec, runs_root())
    if wait:
        _require_possible(spec)
    run = create_run(spec)
    _start(run, Start(queue=wait, after=after))
    return run


def resume(run: RunDirectory, wait: bool = False, *, anyway: bool = False, learning_rate: float | None = None) -> None:
    """Start a run again from its last good checkpoint; with `wait` once its memory is free, with `anyway` though data,
    settings, versions or base weights changed since, and with another `learning_rate` where one is given. Raises
    Problem when it is live or finished, or the engine does not start."""
    state = liveness(run)
    if state == "live":
        raise Problem(run.name, "is running already", f"Watch it with `finetui watch {run.name}`.")
    if state == "ended" and (end := last_event(run.events_path)) and end.get("outcome") == "finished":
        raise Problem(run.name, "is finished", "Start a new run to train further.")
    if wait:
        _require_possible(adjusted_spec(run.spec(), read_state(run).adjusted))
    _start(run, Start(resume=True, queue=wait, anyway=anyway, learning_rate=learning_rate))


def stop(run: RunDirectory) -> None:
    """Ask a live run to finish its step, save and end as stopped; returns as soon as it was asked. Raises Problem
    when it is not live or cannot be reached."""
    if liveness(run) != "live":
        raise Problem(run.name, "is not running", "`finetui runs` shows what is.")
    try:
        ask(run, "stop")
    except Problem:
        # Without a control socket (a disk that has none) the signal says the same.
        supervisor = recorded_processes(run).get("supervisor")
        if supervisor is None or not supervisor.send(signal.SIGTERM):
            raise


def liveness(run: RunDirectory) -> Liveness:
    """live: an engine holds the run's lock. ended: none does, and the journal has its end. died: none does, and it
    has not. never started: there is no journal. Raises OSError when the folder cannot be read."""
    # The lock before the journal: an engine writes the end before it lets go.
    if lock_holder(run.lock_path) is not None:
        return "live"
    if not run.events_path.exists():
        return "never started"
    last = last_event(run.events_path)
    return "ended" if last is not None and last["kind"] == "end" else "died"


def _require_possible(spec: RunSpec) -> None:
    """Raises Problem for a run that would wait for ever, and for a model that cannot be read."""
    room = room_for(spec)
    if not room.possible:
        raise Problem(
            spec.name,
            f"needs {size_text(room.needed_bytes)}, and {room.device} has {size_text(room.total_bytes)} in all, "
            f"{size_text(room.reserve_bytes)} of them kept in reserve",
            "Make data.sequence_length or train.micro_batch smaller, or take a leaner method.",
        )


def _start(run: RunDirectory, start: Start) -> None:
    command = module_command("engine.run.supervisor", str(run.path), *start.arguments())
    try:
        # The supervisor forks itself off and this command returns when it is ready, or with the reason why not.
        starter = subprocess.run(
            command,
            cwd="/",
            env=module_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            start_new_session=True,
            timeout=_START_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise Problem(run.name, f"its engine was not ready after {_START_SECONDS} s", _see_log(run)) from None
    except OSError as error:
        raise Problem(run.name, f"its engine could not be started: {error.strerror}", "Try again.") from None
    answer = _answer(starter.stdout)
    if "problem" in answer:
        raise Problem(**answer["problem"])
    if not answer.get("ready"):
        said = starter.stderr.decode(errors="replace").strip().splitlines() or last_lines(run.log_path, 1)
        why = f": {said[-1]}" if said else ""
        raise Problem(run.name, f"its engine ended before it was ready{why}", _see_log(run))


def _answer(output: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(output)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _see_log(run: RunDirectory) -> str:
    return f"See {run.log_path}."
