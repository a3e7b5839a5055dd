"""A run's seal, with a real supervisor and workers that are sealed: what it tells, what it refuses, what it counts."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import endless_trial
import leak
import psutil
import pytest
from waiting import end_of, told, wait_for_end, wait_until

import engine.run.sealing.trial
from engine.modules import module_environment
from engine.run.control import ask
from engine.run.creating import create_run
from engine.run.directory import RunDirectory
from engine.run.endings.causes import Ending
from engine.run.evidence.audit import read_audit
from engine.run.launch import launch, resume
from engine.run.liveness import liveness
from engine.run.processes.recorded import recorded_processes
from engine.run.sealing.trial import Prepared, Trial
from engine.run.summary import summarise
from engine.run.telemetry.reading import read_state
from engine.seal.ability import ability
from engine.seal.request import LAYERS, Level
from engine.spec import RunSpec
from profiles.problem import Problem

Script = Callable[..., None]

HELD = [each.layer for each in ability().layers if each.held]
"""Of this machine, which may be a container that allows less."""
needs_all = pytest.mark.skipif(len(HELD) < len(LAYERS), reason=f"this machine holds {HELD} only")
needs_seccomp = pytest.mark.skipif("seccomp" not in HELD, reason="this machine has no seccomp")

_KNOCK = """
import ctypes
library = ctypes.CDLL(None, use_errno=True)
library.socket(2, 1, 0)
"""


def sealed_at(spec: RunSpec, level: Level) -> RunSpec:
    return spec.model_copy(update={"privacy": spec.privacy.model_copy(update={"seal": level})})


@needs_all
def test_a_sealed_run_tells_what_holds_how_it_was_tried_and_that_it_stayed_so(
    spec: RunSpec, script: Script, tmp_path: Path
):
    go = tmp_path / "go"
    os.mkfifo(go)
    script(["idle_until", str(go)], ["take", 2, 0], ["save"], ["finish"])
    run = launch(sealed_at(spec, "required"))
    wait_until(lambda: told(run, "seal"))  # of a worker that has ended the kernel says less
    go.write_text("")
    assert wait_for_end(run)["outcome"] == "finished"
    (seal,) = told(run, "seal")
    assert [each["layer"] for each in seal["layers"] if each["held"]] == list(LAYERS)
    probes = seal["probes"]
    assert probes["tried"] == probes["refused"] >= 27
    assert (probes["open"], probes["hits"], probes["control"], probes["broken"]) == ([], 0, True, [])
    assert (
        seal["text"] == f"sealed: namespace, landlock, seccomp; {probes['tried']} of {probes['tried']} probes refused"
    )
    evidence = seal["evidence"]
    assert (evidence["no_new_privs"], evidence["seccomp"], list(evidence["interfaces"])) == (True, 2, ["lo"])
    assert (evidence["routes_out"], evidence["packets_out"], evidence["unread"]) == ([], 0, [])
    assert evidence["namespaces"]["net"]["apart"] and evidence["namespaces"]["mnt"]["apart"]
    checks = told(run, "seal_check")
    assert [(each["when"], each["step"]) for each in checks] == [("checkpoint", 2), ("end", 2)]
    assert [each["changed"] for each in checks] == [[], []] and seal["changed"] == []
    assert checks[-1]["evidence"]["pid"] == told(run, "attempt")[0]["worker_pid"]
    state = read_state(run)
    assert (state.seal_checks, state.seal_changed, state.ways_out, state.seal["level"]) == (2, (), (), "required")
    assert state.seal_last_check["when"] == "end"


@pytest.mark.parametrize("layer", LAYERS)
def test_without_a_layer_required_trains_nothing_and_best_goes_on_and_says_so(
    spec: RunSpec, script: Script, monkeypatch: pytest.MonkeyPatch, layer: str
):
    monkeypatch.setenv("FINETUI_SEAL_WITHOUT", layer)
    script(["take", 1, 0], ["finish"])
    with pytest.raises(Problem, match=f"the seal is required.*{layer}") as refused:
        launch(sealed_at(spec, "required"))
    assert "--seal best" in refused.value.fix
    (run,) = map(RunDirectory, (Path(os.environ["FINETUI_HOME"]) / "runs").glob("2*"))
    wait_until(lambda: liveness(run) != "live")
    end = end_of(run)
    assert (end["outcome"], end["cause"], told(run, "attempt"), told(run, "step")) == ("failed", "unsealed", [], [])
    assert (summarise(run).cause, summarise(run).state) == ("unsealed", "failed")

    resume(run, seal="best")
    wait_until(lambda: told(run, "attempt") and liveness(run) != "live")
    (seal,) = told(run, "seal")
    assert not next(each for each in seal["layers"] if each["layer"] == layer)["held"]
    assert f"; {layer} is missing: " in seal["text"]
    assert [each["when"] for each in told(run, "seal_check")] == ["end"] and read_state(run).seal_changed == ()
    assert told(run, "end")[-1]["outcome"] == "finished"
    (adjusted,) = told(run, "adjusted")
    assert adjusted["changes"] == {"privacy.seal": ["required", "best"]}
    assert any("privacy.seal" in str(entry) for entry in read_audit(run).entries)


@needs_seccomp
def test_tries_to_get_out_are_counted_with_who_tried(spec: RunSpec, script: Script):
    guarded = """
import socket
from engine.run.sealing.lines import tell_from_environment
from engine.seal.proof.guard import install
install(tell_from_environment())
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError:
    pass
"""
    in_a_child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_KNOCK!r}])"
    script(["execute", _KNOCK * 3], ["execute", in_a_child], ["execute", guarded], ["take", 1, 0], ["finish"])
    run = launch(spec)
    assert wait_for_end(run)["outcome"] == "finished"
    ways = read_state(run).ways_out
    by_kernel = [each for each in ways if each["what"] == "socket(AF_INET, SOCK_STREAM)"]
    assert sum(each["count"] for each in by_kernel) == 4 and {each["where"] for each in by_kernel} == {""}
    assert all(each["process"].startswith("python") for each in by_kernel)
    assert len({each["pid"] for each in told(run, "way_out") if not each["where"]}) == 2
    (by_guard,) = (each for each in ways if each["where"])
    assert "192.0.2.1" in by_guard["what"] and by_guard["where"].rpartition(":")[2].isdecimal()
    assert read_state(run).ways_out_tried == 5, "each was told by one of the two who notice"


@needs_seccomp
def test_a_flood_of_tries_delays_nobody_and_does_not_fill_the_journal(spec: RunSpec, script: Script):
    flood = "import ctypes\nlibrary = ctypes.CDLL(None)\nfor _ in range(20_000): library.socket(2, 1, 0)"
    script(["execute", flood], ["await_stop"])
    run = launch(spec)
    wait_until(lambda: told(run, "way_out"))
    assert ask(run, "status")["worker_pid"] is not None
    ask(run, "stop")  # which its worker hears once it has tried them all
    began, ended = told(run, "seal")[0]["at"], wait_for_end(run)["at"]
    tries = [each["count"] for each in told(run, "way_out")]
    assert sum(tries) == 20_000 and len(tries) <= ended - began + 2


@needs_seccomp
def test_when_the_supervisor_is_dead_the_calls_are_refused_all_the_same(spec: RunSpec, script: Script, tmp_path: Path):
    after = f"""
import ctypes, os, pathlib, time
supervisor = os.getppid()
worker.channel.send("note", text="here")
while os.getppid() == supervisor:
    time.sleep(0.01)
library = ctypes.CDLL(None, use_errno=True)
number = library.socket(2, 1, 0)
pathlib.Path({str(tmp_path / "answer")!r}).write_text(f"{{number}} {{ctypes.get_errno()}}")
"""
    script(["execute", after], ["finish"])
    run = launch(spec)
    wait_until(lambda: told(run, "note"))
    recorded_processes(run)["supervisor"].send(signal.SIGKILL)
    answer = wait_until(lambda: (tmp_path / "answer").exists() and (tmp_path / "answer").read_text())
    number, error = map(int, answer.split())
    assert number == -1 and error in (errno.ENOSYS, errno.EACCES)


_LEAVING = """
import os, subprocess, sys
lives = "import time; time.sleep(600)  # {mark}"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", lives], {{}})
    os._exit(0)
os.wait()
subprocess.Popen([sys.executable, "-I", "-S", "-c", lives], start_new_session=True)
"""


def living(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[-1:] == [f"import time; time.sleep(600)  # {mark}"]:
                found.append(process)
    return found


@needs_seccomp
@pytest.mark.parametrize("ending", ["finish", "kill"])
def test_nothing_that_a_sealed_trainer_started_outlives_it(spec: RunSpec, script: Script, tmp_path: Path, ending: str):
    """Neither what has a session of its own, nor what has no parent any more."""
    mark = str(tmp_path)
    script(["execute", _LEAVING.format(mark=mark)], ["take", 1, 0], ["finish" if ending == "finish" else "await_stop"])
    run = launch(spec)
    if ending == "kill":
        wait_until(lambda: len(living(mark)) == 2)
        ask(run, "kill")
    assert wait_for_end(run)["outcome"] == ("finished" if ending == "finish" else "stopped")
    wait_until(lambda: living(mark) == [])  # killed by now, which takes effect when the scheduler has time for it


@needs_seccomp
def test_without_the_filter_a_trainer_may_leave_something_running(
    spec: RunSpec, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FINETUI_SEAL_WITHOUT", "seccomp")
    script(["execute", _LEAVING.format(mark=tmp_path)], ["take", 1, 0], ["finish"])
    assert wait_for_end(launch(spec))["outcome"] == "finished"
    left = wait_until(lambda: len(found := living(str(tmp_path))) == 2 and found)
    for process in left:
        process.kill()


def test_an_unsealed_run_says_so_and_is_let_out(spec: RunSpec, script: Script):
    script(["execute", _KNOCK + "worker.channel.send('note', text=str(ctypes.get_errno()))"], ["finish"])
    run = launch(sealed_at(spec, "off"))
    assert wait_for_end(run)["outcome"] == "finished"
    (seal,) = told(run, "seal")
    assert (seal["text"], seal["layers"], seal["probes"]) == ('not sealed (privacy.seal = "off")', [], None)
    assert (read_state(run).notes, told(run, "seal_check"), read_state(run).ways_out) == (("0",), [], ())


def test_a_stop_is_obeyed_while_the_seal_is_tried(spec: RunSpec):
    run = create_run(spec)
    start_with(endless_trial.__file__, run)
    supervisor = psutil.Process(recorded_processes(run)["supervisor"].pid)
    trial = wait_until(lambda: next((each for each in supervisor.children() if _tries_seals(each)), None))
    trial.suspend()  # as if a driver hung in it
    ask(run, "stop")
    end = wait_for_end(run)
    assert (end["outcome"], end["why"]) == ("stopped", "stopped on request before the trainer was started")
    assert told(run, "attempt") == [] and not trial.is_running()


def test_a_trial_that_is_killed_is_begun_again_and_not_for_ever(spec: RunSpec, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine.run.sealing.trial, "module_command", endless_trial.module_command)
    trial = Trial(create_run(spec), "best")
    killed = set()
    while not trial.over:
        for each in psutil.Process().children():
            if _tries_seals(each) and each.pid not in killed:
                killed.add(each.pid)
                each.kill()
        trial.take()
        time.sleep(0.001)
    ending = trial.result()
    trial.close()
    assert isinstance(ending, Ending) and (ending.cause, len(killed)) == ("fault", 3)
    assert "SIGKILL" in ending.why


def _tries_seals(process: psutil.Process) -> bool:
    try:
        return "engine.run.sealing.trial_child" in process.cmdline()
    except psutil.Error:  # it has ended
        return False


def start_with(supervisor: str, run: RunDirectory) -> None:
    """Start the run's engine by a program in place of the usual one."""
    subprocess.run([sys.executable, supervisor, str(run.path)], env=module_environment(), check=True, timeout=60)


@needs_all
@pytest.mark.parametrize("level", ["required", "best"])
def test_a_seal_that_is_not_as_it_was_ends_a_run_that_requires_it_and_is_told_of_any(
    spec: RunSpec, script: Script, level: Level
):
    script(["take", 1, 0], ["save"], ["await_stop"], ["finish"])
    run = create_run(sealed_at(spec, level))
    start_with(leak.__file__, run)
    wait_until(lambda: told(run, "seal_check"))
    if level == "best":
        ask(run, "stop")
    end = wait_for_end(run)
    sentence = f"a route out appeared: {leak.ROUTE}"
    assert sentence in read_state(run).seal_changed
    if level == "best":
        assert end["outcome"] == "finished"
    else:
        assert (end["outcome"], end["cause"]) == ("failed", "unsealed")
        assert end["why"] == f"the seal is required, and did not hold: {sentence}"
        assert run.checkpoints.is_dir() and "--seal best" in end["remedy"]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"refused": 71, "open": [{"name": "DNS", "answer": "OPEN"}]}, "has ways out that are open: DNS"),
        ({"hits": 2}, "was seen through: the listener outside was reached 2 times"),
        ({"control": False}, "could not be tried, since the listener outside was not reached from outside either"),
        ({"tried": 0, "refused": 0}, "was not tried: no probe ran"),
        ({}, ""),
    ],
)
def test_a_seal_that_is_required_must_have_been_tried_and_have_refused_all(found: dict[str, Any], why: str):
    probes = {"tried": 72, "refused": 72, "open": [], "hits": 0, "control": True} | found
    assert Prepared("required", probes=probes).fault() == why
    assert Prepared("required", untried="no room").fault() == "was not tried (no room)"
