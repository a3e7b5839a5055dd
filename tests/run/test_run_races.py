"""What meets at a bad moment: a flood of messages and a command, a stop and a restart, a stop and the queue, a folder
that changes under a run."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import end_of, events_of, hold, wait_until

from engine.modules import module_environment
from engine.run.control import ask
from engine.run.creating import create_run
from engine.run.directory import RunDirectory
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.lock import lock_holder, take_lock
from engine.run.processes.marked import own_processes
from engine.run.processes.orphans import interrupted_runs
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec

Script = Callable[..., None]

LONG = ("train", 100_000, 0.01)
_TRIAL = b"engine.run.sealing.trial_child"


def wait_for_end(run: RunDirectory) -> None:
    wait_until(lambda: liveness(run) != "live")


def test_a_worker_that_never_pauses_in_what_it_says_keeps_nobody_from_being_heard(spec: RunSpec, script: Script):
    script(["flood"])
    run = launch(spec)
    wait_until(lambda: read_state(run).phase == "training")
    assert ask(run, "status")["phase"] == "training"
    ask(run, "kill")
    assert end_of(run)["outcome"] == "stopped"
    wait_for_end(run)


def test_a_log_that_was_deleted_costs_no_run(spec: RunSpec, script: Script, tmp_path: Path):
    os.mkfifo(tmp_path / "go")
    script(["idle_until", str(tmp_path / "go")], ["kill_once", signal.SIGKILL, str(tmp_path / "died")], ["train", 3, 0])
    run = launch(spec)
    run.log_path.unlink()
    (tmp_path / "go").write_text("go")
    wait_until(lambda: read_state(run).attempts == 2)
    (tmp_path / "go").write_text("go")
    assert end_of(run)["outcome"] == "finished"
    assert len(read_state(run).restarts) == 1
    wait_for_end(run)


def test_a_log_that_was_cut_short_is_read_from_its_beginning(spec: RunSpec, script: Script, tmp_path: Path):
    os.mkfifo(tmp_path / "go")
    script(
        *(["kill_once", signal.SIGKILL, str(tmp_path / "died")], ["idle_until", str(tmp_path / "go")]),
        ["send", "phase", {"phase": "evaluating", "detail": "held-out loss before training"}],
        ["crash_unless", "evaluation.batch_tokens", "terminate called: std::bad_alloc", signal.SIGABRT],
        ["train", 3, 0],
    )
    run = launch(spec)
    wait_until(lambda: len([each for each in events_of(run) if each["kind"] == "attempt"]) == 2)
    os.truncate(run.log_path, 0)
    (tmp_path / "go").write_text("go")
    wait_until(lambda: read_state(run).ladder)
    (tmp_path / "go").write_text("go")
    assert end_of(run)["outcome"] == "finished"
    wait_for_end(run)


def test_an_engine_that_may_open_no_file_any_more_still_writes_the_runs_end(spec: RunSpec, script: Script):
    script(["save_at", 1], LONG)
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 2)
    processes = recorded_processes(run)
    _, most = resource.prlimit(processes["supervisor"].pid, resource.RLIMIT_NOFILE)
    resource.prlimit(processes["supervisor"].pid, resource.RLIMIT_NOFILE, (3, most))
    processes["worker"].send(signal.SIGKILL)
    end = end_of(run)
    assert end["outcome"] == "failed" and "Too many open files" in end["why"], end
    wait_for_end(run)


def test_a_number_too_large_for_a_float_is_no_fault(spec: RunSpec, script: Script):
    script(["send", "step", {"step": 1, "tokens": 10**400, "seconds": 1.0}], ["finish"])
    run = launch(spec)
    assert end_of(run)["outcome"] == "finished"
    wait_for_end(run)


def test_a_stop_while_the_trainer_is_begun_anew_ends_the_run(spec: RunSpec, script: Script):
    script(LONG)
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 2)
    supervisor = recorded_processes(run)["supervisor"]
    hold(supervisor)  # both requests are there before it looks at either
    asking = [_ask_without_waiting(run, command) for command in ("restart", "stop")]
    supervisor.send(signal.SIGCONT)
    end = end_of(run)
    assert end["outcome"] == "stopped" and end["why"].startswith("stopped on request"), end
    assert "killed from outside" not in end["why"]
    wait_for_end(run)
    for each in asking:
        each.close()


def test_a_stop_that_meets_the_end_of_the_seals_trial_is_not_lost(spec: RunSpec, script: Script):
    script(LONG)
    run = launch(spec)
    supervisor = recorded_processes(run)["supervisor"]
    hold(supervisor)  # the trial ends and the stop comes before it looks at either
    wait_until(lambda: not [each for each in own_processes() if each.belongs_to(run) and _TRIAL in each.command])
    asking = _ask_without_waiting(run, "stop")
    supervisor.send(signal.SIGCONT)
    assert end_of(run)["outcome"] == "stopped"
    wait_for_end(run)
    asking.close()


# Who ends all processes may end the one that seals the trainer before the engine has looked at its own signal.
_SUPERVISOR = """
import os, signal, sys
from engine.run import supervisor
from engine.run.processes import worker_process
from engine.seal.sealing import SealRefused

def start_sealed(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)
    raise SealRefused("the seal", "its launcher was ended by SIGTERM", "")

worker_process.start_sealed = start_sealed
sys.exit(supervisor.main(sys.argv[1:]))
"""


def test_a_shutdown_that_meets_the_start_of_a_trainer_is_no_fault_of_the_seal(unsealed: RunSpec):
    run = create_run(unsealed)
    subprocess.run([sys.executable, "-c", _SUPERVISOR, str(run.path)], env=module_environment(), check=True)
    end = end_of(run)
    assert (end["outcome"], end.get("by_signal")) == ("stopped", True), end
    wait_for_end(run)


def test_a_signal_that_comes_while_signals_begin_to_be_caught_is_not_lost():
    code = "import signal; from engine.run.processes.taking import catch_signals; caught = signal.signal\n"
    code += "signal.signal = lambda number, handler: (caught(number, handler), signal.raise_signal(number))\n"
    code += "print(*catch_signals().recv(64))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(int(each)) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU)]


def _ask_without_waiting(run: RunDirectory, command: str) -> socket.socket:
    """Where the answer will come."""
    folder = os.open(run.path, os.O_PATH)  # a socket's own path may have 107 bytes
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"/proc/self/fd/{folder}/{run.socket_path.name}")
    os.close(folder)
    connection.sendall(json.dumps({"command": command}).encode() + b"\n")
    return connection


def test_a_person_who_stops_a_run_without_a_socket_is_no_shutdown(spec: RunSpec, script: Script):
    script(LONG)
    run = create_run(spec)
    run.socket_path.mkdir()
    resume(run)
    wait_until(lambda: read_state(run).step > 2)
    stop(run)
    end = end_of(run)
    wait_for_end(run)
    assert end["why"].startswith("stopped on request") and interrupted_runs() == []


def test_asking_after_a_lock_by_another_name_does_not_lose_it(tmp_path: Path):
    path, alias, link = tmp_path / "lock", tmp_path / "alias", tmp_path / "link"
    held = take_lock(path)
    alias.symlink_to(path)
    link.hardlink_to(path)
    assert {lock_holder(each) for each in (path, alias, link)} == {os.getpid()}
    code = "import sys; from pathlib import Path; from engine.run.processes.lock import lock_holder; "
    code += "print(lock_holder(Path(sys.argv[1])))"
    seen = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == str(os.getpid())
    with pytest.raises(BlockingIOError):
        take_lock(alias)
    os.close(held)
