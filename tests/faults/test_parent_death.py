"""Nobody is left behind: whichever process of a run is killed, those that it started end, and what can be is saved."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import tiny
from fault_ledger import Ledger
from training import make_spec, write_chats
from waiting import events_of, told, wait_until

from engine.run.control import ask
from engine.run.launch import launch
from engine.run.liveness import liveness
from engine.run.processes import leash
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec

Script = Callable[..., None]


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are there still; one that nobody has waited for yet is not."""
    found = []
    for each in processes:
        with suppress(psutil.NoSuchProcess):  # gone between two looks
            if each.is_running() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


def test_with_a_worker_go_its_helpers_and_with_a_supervisor_all(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
):
    monkeypatch.setenv("FINETUI_WORKERS", "2")
    # Enough for both helpers to be at work for some seconds after they were seen.
    rows = write_chats(tmp_path / "rows.jsonl", 1000)
    rows.write_bytes(rows.read_bytes() * 200)
    spec = make_spec(tiny.make_model(tmp_path / "model"), rows, train={"max_steps": 2})
    run = launch(spec)

    def helpers() -> list[psutil.Process] | None:
        """The worker's two, once both work on the data."""
        if (recorded := recorded_processes(run).get("worker")) is None:
            return None
        with suppress(psutil.NoSuchProcess):  # the worker, or another child of it, is gone between two looks
            children = psutil.Process(recorded.pid).children(recursive=True)
            found = [each for each in children if sum(each.cpu_times()[:2]) > 0.5]
            return found if len(found) == 2 else None
        return None

    first = wait_until(helpers, seconds=120)
    assert {Path(f"/proc/{each.pid}/oom_score_adj").read_text() for each in first} == {
        Path(f"/proc/{recorded_processes(run)['worker'].pid}/oom_score_adj").read_text()
    }
    ledger.injected("SIGKILL of a worker whose helpers prepare data")
    assert recorded_processes(run)["worker"].send(signal.SIGKILL)
    wait_until(lambda: not running(first))

    wait_until(lambda: len([event for event in events_of(run) if event["kind"] == "attempt"]) == 2)
    second = wait_until(helpers, seconds=120)
    supervisor = psutil.Process(recorded_processes(run)["supervisor"].pid)
    others = supervisor.children(recursive=True)
    assert len(others) == 4 and set(second) < set(others), "a worker, its helpers, and who reads the devices"
    ledger.injected("SIGKILL of a supervisor whose worker prepares")
    supervisor.kill()
    wait_until(lambda: not running([supervisor, *others]))
    assert read_state(run).step == 0 and liveness(run) != "live"


def test_a_worker_outlives_its_supervisor_by_its_save(spec: RunSpec, script: Script, ledger: Ledger):
    script(["train", 100_000, 0.01])
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 3)
    processes = [psutil.Process(each.pid) for each in recorded_processes(run).values()]
    ledger.injected("SIGKILL of a supervisor whose worker trains")
    recorded_processes(run)["supervisor"].send(signal.SIGKILL)
    wait_until(lambda: not running(processes))
    (saved,) = run.checkpoints.iterdir()
    assert int(saved.name.removeprefix("step-")) >= read_state(run).step


def test_the_kernel_ends_a_worker_first_and_the_supervisor_last(spec: RunSpec, script: Script, tmp_path: Path):
    os.mkfifo(tmp_path / "go on")
    script(["idle_until", str(tmp_path / "go on")], ["leave_child"], ["hang"])
    run = launch(spec)
    wait_until(lambda: told(run, "attempt"))  # the worker has its score by then, and hands it on
    (tmp_path / "go on").write_bytes(b"")
    wait_until(lambda: "hanging" in read_state(run).notes)
    processes = recorded_processes(run)
    (child,) = psutil.Process(processes["worker"].pid).children()
    scores = {
        name: int(Path(f"/proc/{pid}/oom_score_adj").read_text())
        for name, pid in (
            ("ours", os.getpid()),
            ("supervisor", processes["supervisor"].pid),
            ("worker", processes["worker"].pid),
            ("child", child.pid),
        )
    }
    assert scores["supervisor"] == scores["ours"]
    assert scores["child"] == scores["worker"] == min(1000, scores["ours"] + 500)
    ask(run, "kill")


# A worker that says when it is tied to its supervisor, here the process that starts it, and then never comes to its
# save: deaf, or lost in native code that lets no other thread run.
_WORKER = """
import os, sys, time
from engine.run.processes import leash
supervisor, may_save, lost, leash.SAVING_SECONDS, leash._NOTICE_SIGNAL = map(int, sys.argv[1:])
held = leash.Leash()
if may_save:
    held.let_save()
held.tie(supervisor)
print(os.getpid(), flush=True)
while not lost:
    time.sleep(600)
3 ** 10**9
"""
_SUPERVISOR = """
import os, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), *sys.argv[2:]], start_new_session=True)
worker.wait()
"""
_ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(leash.__file__).parents[3])}


@pytest.mark.parametrize(
    ("may_save", "lost", "saving_seconds", "notice_seconds"),
    [
        pytest.param(False, False, 600, 60, id="with nothing to save"),
        pytest.param(True, False, 1, 60, id="deaf"),
        pytest.param(True, True, 600, 1, id="lost in native code"),
    ],
)
def test_a_worker_that_does_not_come_to_its_save_does_not_outlive_its_supervisor(
    ledger: Ledger, may_save: bool, lost: bool, saving_seconds: int, notice_seconds: int
):
    fields = [str(int(each)) for each in (may_save, lost, saving_seconds, notice_seconds)]
    command = [sys.executable, "-c", _SUPERVISOR, _WORKER, *fields]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT) as supervisor:
        assert supervisor.stdout is not None
        worker = psutil.Process(int(supervisor.stdout.readline()))
        if lost:
            wait_until(lambda: sum(worker.cpu_times()[:2]) > 1)  # it is in there, and not on its way
        assert running([worker])
        ledger.injected("SIGKILL of a supervisor whose worker does not come to its save")
        supervisor.kill()
        wait_until(lambda: not running([worker]))


def test_one_whose_supervisor_died_before_it_was_tied_ends_at_once():
    gone = subprocess.Popen(["true"])
    gone.wait()
    for other in (gone.pid, 1):  # gone altogether, or not the one that started it
        command = [sys.executable, "-c", _WORKER, str(other), "1", "0", "600", "60"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, start_new_session=True, env=_ENVIRONMENT, timeout=60
        )
        assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


@pytest.mark.parametrize("module", ["engine.fit.shapes_child", "engine.data.preview_child"])
def test_a_process_that_the_app_waits_for_ends_with_it(tmp_path: Path, ledger: Ledger, module: str):
    fifo = tmp_path / "question"
    os.mkfifo(fifo)
    program = "import subprocess, sys; subprocess.run([sys.executable, '-m', sys.argv[1]])"
    with (
        os.fdopen(os.open(fifo, os.O_RDWR), "r+b", buffering=0) as question,
        subprocess.Popen([sys.executable, "-c", program, module], stdin=question, env=_ENVIRONMENT) as app,
    ):
        # It never comes to its end, so that only the death of the one that asks is left to end the child.
        question.write(b"{")
        wait_until(lambda: not _unread_bytes(question.fileno()))
        children = psutil.Process(app.pid).children()
        assert len(running(children)) == 1
        ledger.injected("SIGKILL of an app that waits for a helper")
        app.kill()
        wait_until(lambda: not running(children))


def _unread_bytes(descriptor: int) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return count
