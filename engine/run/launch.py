"""Starting a run so that it outlives whoever started it, resuming one, and stopping one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.modules import module_command, module_environment
from engine.run.control import ask
from engine.run.creating import create_run
from engine.run.directory import RunDirectory, runs_root
from engine.run.disk_room import require_disk
from engine.run.endings.adjusted import adjusted_spec
from engine.run.liveness import liveness
from engine.run.private import require_own
from engine.run.processes.recorded import recorded_processes
from engine.run.processes.taking import ASKED_SIGNAL, START_NOTE_VARIABLE, wait_for_orphan
from engine.run.sizes import size_text
from engine.run.start import Start
from engine.run.surviving.survival import scope_command, scope_environment, survival
from engine.run.telemetry.journal import last_event
from engine.run.telemetry.log import last_lines
from engine.run.telemetry.reading import read_state
from engine.run.waiting.predecessor import require_run
from engine.run.waiting.returning import waited
from engine.run.waiting.room import room_for
from engine.seal.request import Level
from profiles.machine.kernel import require_kernel
from profiles.problem import Problem, printable

if TYPE_CHECKING:
    from engine.spec import RunSpec

# A supervisor is ready in a fraction of a second; a machine that swaps may take a hundred times as long.
_START_SECONDS = 120

Tell = Callable[[str], None]


def launch(
    spec: RunSpec,
    wait: bool = False,
    after: str | None = None,
    *,
    beside: bool = False,
    tell: Tell | None = None,
) -> RunDirectory:
    """Make a run and start its engine, detached: it goes on when this process, its terminal or its login ends.

    With `wait` the engine starts the training once its turn has come and its memory is free, the run that waits longest
    first, and with `after` not before the run of that name has ended; with `beside` it does not wait for the other
    runs on its device to end. Without, it starts at once, whatever is free: ask `room_for` and tell. Returns once the
    engine is ready; `tell` hears what did not go as planned meanwhile. Raises Problem when the run cannot be made, its
    disk has surely no room for it, its memory can never be free here, there is no such run to come after, this system
    is none that trains, or the engine does not start."""
    require_kernel()
    if after is not None:
        require_run(after)
    require_disk(spec, runs_root())
    wait = wait or after is not None
    if wait:
        _require_possible(spec)
    run = create_run(spec)
    _start(run, Start(queue=wait, after=after, beside=beside), tell)
    return run


def resume(
    run: RunDirectory,
    wait: bool = False,
    *,
    anyway: bool = False,
    learning_rate: float | None = None,
    seal: Level | None = None,
    after: str | None = None,
    beside: bool = False,
    tell: Tell | None = None,
) -> None:
    """Start a run again from its last good checkpoint; with `anyway` though data, settings, versions or base weights
    changed since, and with another `learning_rate` or level of the `seal` where one is given. `wait`, `after` and
    `beside` are launch's; a run whose engine died while it waited waits again. A worker that still saves what it learnt
    under an engine that was killed is waited for; `tell` hears of it, and of what else did not go as planned. Raises
    Problem when the run is live or finished, or another user's, or the engine does not start."""
    require_kernel()
    require_own(run.path)
    state = liveness(run)
    if state == "live":
        raise Problem(run.name, "is running already", f"Watch it with `finetui watch {run.name}`.")
    if state == "ended" and (end := last_event(run.events_path)) and end.get("outcome") == "finished":
        raise Problem(run.name, "is finished", "Start a new run to train further.")
    if after is not None:
        require_run(after)
    wait = wait or after is not None or waited(run)
    if wait:
        _require_possible(adjusted_spec(run.spec(), read_state(run).adjusted))
    wait_for_orphan(run, tell)  # here, where somebody waits and can be told
    start = Start(
        resume=True,
        queue=wait,
        anyway=anyway,
        learning_rate=learning_rate,
        seal=seal,
        after=after,
        beside=beside,
    )
    _start(run, start, tell)


def stop(run: RunDirectory) -> None:
    """Ask a live run to finish its step, save and end as stopped; returns as soon as it was asked. Raises Problem
    when it is not live or cannot be reached."""
    if liveness(run) != "live":
        raise Problem(run.name, "is not running", "`finetui runs` shows what is.")
    try:
        ask(run, "stop")
    except Problem as problem:
        # Without a control socket (a disk that has none) the signal says the same.
        supervisor = recorded_processes(run).get("supervisor")
        try:
            if supervisor is None or not supervisor.send(ASKED_SIGNAL):
                raise
        except PermissionError:  # another user's
            raise problem from None


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


def _start(run: RunDirectory, start: Start, tell: Tell | None) -> None:
    """Start the engine in the way that outlives logging out here. Raises Problem."""
    command = module_command("engine.run.supervisor", str(run.path), *start.arguments())
    environment = module_environment()
    if survival().way == "scope":
        scoped = _run_starter(run, scope_command(run.name, command), scope_environment(environment))
        if _answer(scoped.stdout):
            _judge(run, scoped)
            return
        # systemd-run says why it has made no scope; an engine that ended before it was ready will say it again.
        said = scoped.stderr.decode(errors="replace").strip().splitlines()
        why = f" ({printable(said[-1], 200)})" if said else ""
        note = f"systemd made no scope for this run{why}: logging out may end it"
        environment[START_NOTE_VARIABLE] = note
        if tell is not None:
            tell(note)
    _judge(run, _run_starter(run, command, environment))


def _run_starter(
    run: RunDirectory, command: list[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[bytes]:
    """Run the command that forks the engine off, and returns when that is ready or with the reason why not."""
    try:
        return subprocess.run(
            command,
            cwd="/",
            env=environment,
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


def _judge(run: RunDirectory, starter: subprocess.CompletedProcess[bytes]) -> None:
    """Raises Problem when the engine did not start."""
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
