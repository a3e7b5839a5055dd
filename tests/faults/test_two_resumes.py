"""Several people, or one who is impatient, resume a run at once: exactly one engine runs, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import ENGINE_SECONDS, Finetui
from fault_ledger import Ledger
from waiting import events_of, wait_until

from engine.run.checkpoints.manifest import newest_step
from engine.run.directory import RunDirectory
from engine.run.launch import launch, stop
from engine.run.liveness import liveness
from engine.run.processes.marked import own_processes
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec

Script = Callable[..., None]

AT_ONCE = 5
LONG = ("train", 100_000, 0.01)


def workers_of(run: RunDirectory) -> set[int]:
    """The pids that lead a session of their own, as trainers do."""
    pids = {seen.identity.pid for seen in own_processes() if seen.belongs_to(run)}
    return {pid for pid in pids if _leads(pid)}


def _leads(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


@pytest.mark.parametrize(
    "ending", ["supervisor killed", *(pytest.param(each, marks=pytest.mark.slow) for each in ("stopped", "killed"))]
)
def test_of_many_resumes_one_runs(
    spec: RunSpec, script: Script, home: Path, finetui: Finetui, ending: str, ledger: Ledger
):
    """After a stop; after everything was killed; and while the worker of a killed engine still saves."""
    script(LONG)
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 2)
    if ending == "stopped":
        stop(run)
    for name, process in recorded_processes(run).items():
        if ending == "killed" or name == ending.split()[0]:
            process.send(signal.SIGKILL)
    wait_until(lambda: liveness(run) != "live")
    attempts = read_state(run).attempts

    commands = [
        subprocess.Popen(
            finetui.argv("resume", run.name),
            env=finetui.environ() | {"FINETUI_WORKER_COMMAND": os.environ["FINETUI_WORKER_COMMAND"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(AT_ONCE)
    ]
    answers = [(*command.communicate(timeout=ENGINE_SECONDS), command.returncode) for command in commands]
    ledger.injected("resumes at once", AT_ONCE)

    refused = [said for _, said, status in answers if status]
    assert len(refused) == AT_ONCE - 1, answers
    assert all(" is running already" in said or " is already in the hands of process " in said for said in refused)
    assert not any("Traceback" in said for _, said, _ in answers)
    wait_until(lambda: read_state(run).attempts == attempts + 1)
    wait_until(lambda: workers_of(run) == {recorded_processes(run)["worker"].pid})
    newest = newest_step(run.checkpoints)
    wait_until(lambda: read_state(run).step > (newest or 0))
    assert read_state(run).attempts == attempts + 1
    assert read_state(run).resumed_from == newest
    stop(run)
    wait_until(lambda: liveness(run) != "live")
    events = events_of(run)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
