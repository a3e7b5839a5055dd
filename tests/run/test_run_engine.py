"""The engine as a person uses it: real processes, started, left alone, asked, killed and resumed."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from waiting import end_of, events_of, hold, kill_run, wait_until

import engine.run.liveness
from engine.run.control import ask
from engine.run.directory import RunDirectory, find_run
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.lock import lock_holder
from engine.run.processes.recorded import recorded_processes
from engine.run.summary import summaries, summarise
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from profiles.problem import Problem

Script = Callable[..., None]

LONG = ("train", 100_000, 0.01)


def notes_of(run: RunDirectory) -> list[str]:
    return [event["text"] for event in events_of(run) if event["kind"] == "note"]


def steps_of(run: RunDirectory) -> list[int]:
    return [event["step"] for event in events_of(run) if event["kind"] == "step"]


def wait_for_note(run: RunDirectory, text: str) -> str:
    return wait_until(lambda: next((note for note in notes_of(run) if text in note), None))


def wait_for_end(run: RunDirectory) -> None:
    wait_until(lambda: liveness(run) != "live")


def test_a_run_that_is_resumed_just_as_somebody_looks_at_it_has_not_died(
    spec: RunSpec, script: Script, monkeypatch: pytest.MonkeyPatch
):
    script(LONG)
    run = launch(spec)
    stop(run)
    wait_for_end(run)

    def before_it_is_resumed(path: Path) -> int | None:
        monkeypatch.setattr(engine.run.liveness, "lock_holder", lock_holder)
        held = lock_holder(path)
        resume(run)
        wait_until(lambda: events_of(run)[-1]["kind"] != "end")
        return held

    monkeypatch.setattr(engine.run.liveness, "lock_holder", before_it_is_resumed)
    assert liveness(run) == "live"
    stop(run)
    wait_for_end(run)


def test_a_run_from_launch_to_finish(spec: RunSpec, script: Script):
    script(["write", "a library speaks"], ["train", 5, 0.01])
    run = launch(spec)
    assert end_of(run).items() >= {"outcome": "finished", "why": "all steps are done", "step": 5}.items()
    wait_for_end(run)
    events = events_of(run)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["kind"] for event in (*events[:3], events[-1])] == ["phase", "attempt", "seal", "end"]
    assert steps_of(run) == [1, 2, 3, 4, 5]
    assert [event["tokens_seen"] for event in events if event["kind"] == "step"] == [20, 40, 60, 80, 100]
    # Only the log has what was printed, by Python or past it; the worker's folders are nobody else's.
    assert re.findall("a library.*", run.log_path.read_text()) == ["a library speaks", "a library speaks (native)"]
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) & 0o077 for each in run.path.iterdir()} == {0}
    assert not run.socket_path.exists()
    assert run.spec() == spec and "python" in json.loads(run.environment_path.read_text())
    (line,) = summaries()
    assert (line.state, line.step, line.planned_steps, line.loss, line.name) == ("finished", 5, 5, 0.2, run.name)
    with pytest.raises(Problem, match="is finished"):
        resume(run)
    with pytest.raises(Problem, match="is not running"):
        stop(run)


def test_a_run_outlives_its_terminal_and_the_death_of_all_who_started_it(
    home: Path, spec: RunSpec, script: Script, tmp_path: Path
):
    script(LONG)
    spec_path = tmp_path / "spec.toml"
    spec_path.write_text(spec.to_toml())
    starter = (
        "import sys, time; from pathlib import Path; from engine.run.launch import launch;"
        "from engine.spec import load_spec; launch(load_spec(Path(sys.argv[1]))); time.sleep(600)"
    )
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", starter, str(spec_path)])
    run = wait_until(_latest)
    wait_until(lambda: liveness(run) == "live" and run.events_path.exists() and steps_of(run))
    os.killpg(pid, signal.SIGKILL)
    os.close(terminal)
    os.waitpid(pid, 0)
    for process in recorded_processes(run).values():
        assert process.send(signal.SIGHUP), "a late hang-up, as sent by a dying shell"
    seen = len(steps_of(run))
    wait_until(lambda: len(steps_of(run)) > seen + 5)

    # Opened again from elsewhere, it is there with its whole history, and can be stopped.
    assert find_run("latest") == find_run("notes") == find_run(str(run.path)) == run
    state = read_state(run)
    assert state.steps[0].step == 1 and state.step >= seen
    stop(run)
    end_of(run)
    wait_for_end(run)
    assert summarise(run).state == "stopped"


def _latest() -> RunDirectory | None:
    try:
        return find_run("latest")
    except Problem:
        return None


@pytest.mark.parametrize("way", ["socket", "signal"])
def test_stop_saves_and_resume_goes_on_from_there(spec: RunSpec, script: Script, way: str):
    script(LONG)
    run = launch(spec)
    wait_until(lambda: steps_of(run))
    with pytest.raises(Problem, match="is running already"):
        resume(run)
    if way == "socket":
        stop(run)
        with suppress(Problem):  # it may have ended by now
            ask(run, "stop")
    else:
        recorded_processes(run)["supervisor"].send(signal.SIGTERM)
    end = end_of(run)
    wait_for_end(run)
    assert (end["outcome"], end["cause"], end.get("by_signal", False)) == ("stopped", "stopped", way == "signal")
    assert end["why"].startswith("stopped by a signal" if way == "signal" else "stopped on request")
    assert notes_of(run).count("got stop") == 1
    stopped_at = end["step"]
    assert read_state(run).checkpoint_step == stopped_at == steps_of(run)[-1]

    script(["train", stopped_at + 3, 0.01])
    resume(run)
    wait_until(lambda: events_of(run)[-1]["kind"] == "end" and len(steps_of(run)) > stopped_at)
    wait_for_end(run)
    assert steps_of(run) == list(range(1, stopped_at + 4))
    state = read_state(run)
    assert (state.attempts, state.resumed_from, state.outcome, state.tokens_seen) == (
        *(2, stopped_at, "finished"),
        20 * (stopped_at + 3),
    )


def test_commands_reach_the_worker_and_are_journalled(spec: RunSpec, script: Script):
    script(LONG)
    run = launch(spec)
    wait_until(lambda: steps_of(run))
    for command in ("save", "evaluate", "sample"):
        assert ask(run, command) == {"ok": True, "command": command}
        wait_for_note(run, f"got {command}")
    status = ask(run, "status")
    processes = recorded_processes(run)
    assert (status["pid"], status["worker_pid"]) == (processes["supervisor"].pid, processes["worker"].pid)
    assert status["stop_requested"] is False and status["planned_steps"] == 100_000
    # The first reading may be of a process that is only about to become the worker.
    wait_until(lambda: read_state(run).device.get("worker_bytes", 0) > 1 << 20)
    assert (reading := read_state(run).device)["memory_total_bytes"] > reading["worker_bytes"]
    asked = [(event["command"], event["by"]) for event in events_of(run) if event["kind"] == "control"]
    assert asked == [(command, os.getpid()) for command in ("save", "evaluate", "sample")]
    with pytest.raises(Problem, match="no command"):
        ask(run, "dance")


@pytest.mark.parametrize(
    ("actions", "cause", "why"),
    [
        ([["fail", "no such layer"]], "fault", "the trainer failed with exit status 1: RuntimeError: no such layer"),
        ([["leave", 0]], "fault", "the trainer ended without saying why"),
        (
            [["send", "problem", {"where": "train.jsonl:3", "what": "is cut off", "fix": "Copy it."}], ["leave", 2]],
            "input",
            "train.jsonl:3: is cut off",
        ),
    ],
)
def test_a_worker_that_fails_is_told_as_it_failed(spec: RunSpec, script: Script, actions: list, cause: str, why: str):
    script(["send", "note", {"text": "before"}], *actions)
    run = launch(spec)
    end = end_of(run)
    wait_for_end(run)
    assert (end["outcome"], end["cause"], end["why"]) == ("failed", cause, why)
    summary = summarise(run)
    assert (summary.state, summary.cause, summary.why) == ("failed", cause, why)
    assert (read_state(run).problem is not None) == (actions[0][0] == "send")
    assert len([event for event in events_of(run) if event["kind"] == "attempt"]) == 1, "no restart helps against that"


def test_a_run_whose_processes_were_all_killed_is_failed_and_says_how_to_go_on(spec: RunSpec, script: Script):
    script(["hang"])
    run = launch(spec)
    wait_for_note(run, "hanging")
    kill_run(run)
    summary = summarise(run)
    why = "its engine was killed from outside while it was prepared; nothing was saved yet"
    assert (summary.state, summary.cause, summary.why) == ("failed", "engine_killed", why)
    assert summary.remedy == f"Begin again with `finetui resume {run.name}`."


def test_a_crash_after_the_outcome_is_a_note_and_the_outcome_stands(spec: RunSpec, script: Script):
    script(["train", 2, 0], ["kill", 6])
    run = launch(spec)
    assert end_of(run)["outcome"] == "finished"
    assert "SIGABRT" in wait_for_note(run, "after its last word")


def test_what_a_worker_should_not_say_is_noted_and_harms_nothing(spec: RunSpec, script: Script):
    script(
        ["garble", 'no json\n\x1b[2J\udcff\n[1]\n{"no":"kind"}\n'],
        ["send", "end", {"outcome": "finished", "why": "I say so"}],
        ["send", "note", {"text": "\ud83d é \x00"}],
        ["send", "step", {"step": 1, "seq": 99, "tokens_seen": 5}],
        ["garble", '{"kind":"note","text":"its newline'],
        ["leave", 3],
    )
    run = launch(spec)
    assert end_of(run)["outcome"] == "failed"
    notes = notes_of(run)
    assert len([note for note in notes if "sent what is no event" in note]) == 5
    assert not any("\x1b" in note for note in notes)
    assert any("end event, which is not its to write" in note for note in notes)
    assert "\ud83d é \x00" in notes
    assert [event["seq"] for event in events_of(run)] == list(range(1, len(events_of(run)) + 1))


def test_what_a_worker_leaves_running_neither_delays_the_end_nor_stays(spec: RunSpec, script: Script):
    script(["leave_child"], ["train", 2, 0])
    run = launch(spec)
    child = int(wait_for_note(run, "child ").split()[1])
    assert end_of(run)["outcome"] == "finished"
    wait_until(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child))


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_worker_that_does_not_react_goes_on_until_it_is_killed_on_request(spec: RunSpec, script: Script):
    script(["hang"])
    run = launch(spec)
    wait_for_note(run, "hanging")
    stop(run)
    wait_until(lambda: read_state(run).stop_requested)
    assert liveness(run) == "live" and summarise(run).why == "stopping"
    ask(run, "kill")
    end = end_of(run)
    assert end["outcome"] == "stopped"
    assert end["why"] == "killed on request without saving; what was learnt after the last checkpoint is lost"


def test_when_the_supervisor_is_killed_its_worker_saves_and_ends_and_the_run_can_be_resumed(
    spec: RunSpec, script: Script
):
    script(LONG)
    run = launch(spec)
    wait_until(lambda: steps_of(run))
    processes = recorded_processes(run)
    processes["supervisor"].send(signal.SIGKILL)
    assert processes["supervisor"].wait(60)
    assert liveness(run) == "died"
    with pytest.raises(Problem, match="no engine listens"):
        ask(run, "status")
    resume(run)  # waits for the orphan: two workers never write one run
    assert not processes["worker"].is_alive()
    wait_until(lambda: read_state(run).attempts == 2 and read_state(run).phase == "training")
    state = read_state(run)
    (checkpoint,) = run.checkpoints.iterdir()
    assert checkpoint.name == f"step-{state.resumed_from:06}" and state.resumed_from > 0
    assert "not journalled, the engine is gone" in run.log_path.read_text()


def test_one_run_has_one_engine(spec: RunSpec, script: Script):
    script(LONG)
    run = launch(spec)
    wait_until(lambda: steps_of(run))
    command = [sys.executable, "-m", "engine.run.supervisor", str(run.path), "--resume"]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    pid = recorded_processes(run)["supervisor"].pid
    assert second.returncode == 2 and second.stderr == ""
    assert json.loads(second.stdout)["problem"]["what"] == f"is already in the hands of process {pid}"
    stop(run)
    wait_for_end(run)

    with ThreadPoolExecutor(4) as pool:
        faults = [future.exception() for future in [pool.submit(resume, run) for _ in range(4)]]
    assert faults.count(None) == 1 and all(isinstance(fault, Problem) for fault in faults if fault)
    wait_until(lambda: read_state(run).attempts > 1)
    assert liveness(run) == "live" and len([event for event in events_of(run) if event["kind"] == "attempt"]) == 2


def test_garbage_on_the_control_socket_is_answered_and_delays_nobody(spec: RunSpec, script: Script):
    script(LONG)
    run = launch(spec)

    # Through the folder's descriptor: a socket's own path may have 107 bytes, and a test's folder is often longer.
    folder = os.open(run.path, os.O_PATH)
    socket_path = f"/proc/self/fd/{folder}/{run.socket_path.name}"

    def say(data: bytes, shut: bool = True) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(socket_path)
            try:
                connection.sendall(data)
                if shut:
                    connection.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                assert len(data) > 1 << 20  # it was refused before all of it was sent
            return connection.makefile("rb").readline()

    # All of them within the seconds after which who says nothing is let go, however slow the machine.
    supervisor = recorded_processes(run)["supervisor"]
    hold(supervisor)
    silent = [socket.socket(socket.AF_UNIX) for _ in range(33)]
    for connection in silent:
        connection.connect(socket_path)
    supervisor.send(signal.SIGCONT)
    for _ in range(3):
        ask(run, "status")  # one that asks is heard beside those that do not
    for data in (
        b"",
        b"\n",
        b"\xff\x00\n",
        b"stop",
        b'{"command": 1}\n',
        b'["stop"]\n',
        b'{"command":"stop"',
        b"[" * 4000,
    ):
        assert b"a request is a line such as" in say(data), data
    assert b"a request has less than 4,096 bytes" in say(b"x" * 5000)
    assert b"a request has less than 4,096 bytes" in say(b"y" * (8 << 20))
    assert json.loads(say(b'{"command":"status"}'))["pid"] == recorded_processes(run)["supervisor"].pid
    assert ask(run, "status")["stop_requested"] is False
    # Who connects and says nothing is let go, with the reason.
    silent[-1].settimeout(20)
    assert b"nothing was asked in time" in silent[-1].recv(1000)
    assert b"too many are asking at once" in silent[0].recv(1000)
    for connection in silent:
        connection.close()
    seen = len(steps_of(run))
    wait_until(lambda: len(steps_of(run)) > seen)


def test_a_run_deep_in_the_file_system_is_controlled_like_any_other(
    home: Path, spec: RunSpec, script: Script, monkeypatch
):
    monkeypatch.setenv("FINETUI_HOME", str(home.joinpath(*["a long name with ünïcode and spaces"] * 5)))
    script(LONG)
    run = launch(spec)
    assert len(os.fsencode(run.socket_path)) > 250
    assert wait_until(lambda: ask(run, "status")["worker_pid"]) > 0
    stop(run)
    assert end_of(run)["outcome"] == "stopped"
    wait_for_end(run)


def test_without_a_control_socket_a_run_can_still_be_stopped(spec: RunSpec, script: Script):
    script(LONG)
    run = launch(spec)
    run.socket_path.unlink()
    stop(run)
    assert end_of(run)["outcome"] == "stopped"


def test_a_worker_that_cannot_be_started_ends_the_run(spec: RunSpec, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FINETUI_WORKER_COMMAND", "/no/such/worker")
    run = launch(spec)
    assert end_of(run)["cause"] == "input"
    wait_for_end(run)
    (summary,) = summaries()
    assert (summary.state, summary.why) == ("failed", "the trainer could not be started: No such file or directory")


def test_an_ended_run_is_live_to_nobody_and_a_stale_pid_is_never_signalled(spec: RunSpec, script: Script):
    script(["train", 1, 0])
    run = launch(spec)
    end_of(run)
    wait_for_end(run)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        record = json.loads(run.pid_path.read_text())
        for name in record:
            record[name]["pid"] = bystander.pid
        run.pid_path.write_text(json.dumps(record))
        for process in recorded_processes(run).values():
            assert not process.is_alive() and not process.send(signal.SIGKILL)
        time.sleep(0.1)
        assert bystander.poll() is None
        bystander.kill()
