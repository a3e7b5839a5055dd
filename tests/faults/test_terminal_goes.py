"""The terminal goes, or the process in front of it: the app ends or waits without spinning, and the run goes on."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import REPOSITORY, Finetui
from fault_ledger import Ledger
from pty_app import PtyApp

from engine.demo import MODEL_DIRECTORY, TRAIN_FILE
from engine.run.directory import RunDirectory, find_run, list_runs
from engine.run.launch import launch
from engine.run.liveness import liveness
from engine.run.processes.recorded import recorded_processes
from engine.run.processes.worker_process import COMMAND_VARIABLE
from engine.run.telemetry.reading import read_state
from engine.spec import parse_spec

WORKER = Path(__file__).parents[1] / "scripted_worker.py"
OPEN_APP = [sys.executable, "-m", "tui"]
PATIENCE_SECONDS = 60
SPIN_SECONDS = 2.5
"""CPU time. An app that spins takes as much of it as of the clock, and each wait here is longer than that."""
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    """A real engine whose trainer is played, live through all of these tests."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUI_HOME", str(home))
        patch.setenv(COMMAND_VARIABLE, f"{sys.executable} {WORKER}")
        patch.setenv("SCRIPTED_STEPS", "1000000")
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        values = {"name": "clinic", "model": {"path": str(MODEL_DIRECTORY)}, "data": {"train": [str(TRAIN_FILE)]}}
        started = launch(parse_spec(values, "the test's spec"))
        yield started
        for name in ("supervisor", "worker"):
            if process := recorded_processes(started).get(name):
                process.send(signal.SIGKILL)


@pytest.fixture
def goes_on(run: RunDirectory, ledger: Ledger) -> Callable[[str], None]:
    """Counts a fault, then waits for the run's next steps."""

    def check(kind: str) -> None:
        ledger.injected(kind)
        if liveness(run) != "live":
            ledger.lost(kind)
        assert liveness(run) == "live"
        reached = read_state(run).step
        wait_for(lambda: read_state(run).step > reached + 2)

    return check


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, of one that has ended and was not waited for yet, too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def state_of(pid: int) -> str:
    """R runs, S waits, T is stopped, Z has ended."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def ends_without_spinning(process: subprocess.Popen) -> int:
    before = cpu_seconds(process.pid)
    wait_for(lambda: state_of(process.pid) == "Z")
    assert cpu_seconds(process.pid) - before < SPIN_SECONDS
    return process.wait()


def opened(terminal: PtyApp) -> PtyApp:
    terminal.wait_for("● running")
    terminal.wait_for("1,000,000")
    return terminal


def is_cooked(terminal: PtyApp) -> bool:
    """Whether the terminal echoes and takes whole lines, as a shell wants it."""
    local = termios.tcgetattr(terminal.master)[3]
    return bool(local & termios.ECHO and local & termios.ICANON)


def is_restored(terminal: PtyApp) -> bool:
    """Whether second screen, mouse, pasting and focus are off, line wrap and cursor on, by what was written last."""
    written = bytes(terminal.written)

    def is_on(mode: int) -> bool:
        return written.rfind(b"\x1b[?%dh" % mode) > written.rfind(b"\x1b[?%dl" % mode)

    return not any(map(is_on, (1049, 1000, 1003, 1006, 2004, 1004))) and all(map(is_on, (25, 7)))


def test_a_terminal_that_closes_in_the_middle_of_a_frame(run: RunDirectory, goes_on: Callable[[str], None]) -> None:
    terminal = opened(PtyApp(OPEN_APP))
    terminal.type("\x0c")
    wait_for(lambda: b"\x1b[?2026h" in os.read(terminal.master, 64))
    os.close(terminal.master)  # the frame has begun, and its end is never read
    assert ends_without_spinning(terminal.process) == -signal.SIGHUP
    goes_on("terminal closed mid-frame")


def test_a_terminal_that_closes_without_a_hang_up_signal(run: RunDirectory, goes_on: Callable[[str], None]) -> None:
    """Of a terminal that is not its own the app is sent no SIGHUP; reading its end for ever would spin."""
    terminal = opened(PtyApp(OPEN_APP, own=False))
    os.close(terminal.master)
    assert ends_without_spinning(terminal.process) == -signal.SIGHUP
    goes_on("terminal closed without SIGHUP")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_app_and_the_terminal_is_as_before(
    run: RunDirectory, goes_on: Callable[[str], None], number: signal.Signals
) -> None:
    """Followed by SIGCONT, as systemd and many shells send it: who is stopped would not hear the first."""
    with opened(PtyApp(OPEN_APP)) as terminal:
        assert not is_cooked(terminal) and not is_restored(terminal)
        terminal.process.send_signal(number)
        terminal.process.send_signal(signal.SIGCONT)
        assert terminal.wait_for_exit() == -number
        assert is_cooked(terminal) and is_restored(terminal)
        assert b"Traceback" not in terminal.written
    goes_on(f"{number.name} to the app")


def test_the_app_is_killed(run: RunDirectory, goes_on: Callable[[str], None]) -> None:
    with opened(PtyApp(OPEN_APP)) as terminal:
        terminal.process.kill()
        assert terminal.wait_for_exit() == -signal.SIGKILL
    goes_on("SIGKILL to the app")


AS_A_SHELL = "import subprocess, sys; status = subprocess.call(sys.argv[1:]); input(); sys.exit(-status)"


def stop_reading(terminal: PtyApp, pid: int) -> None:
    """Have the app `pid` draw its screen again and again, and read none of it, until it waits for that."""
    drawn, deadline = 0.0, time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        terminal.type("\x0c")
        time.sleep(0.02)
        if (now := cpu_seconds(pid)) == drawn and state_of(pid) == "S":
            return
        drawn = now
    raise AssertionError("the app never waited")


def test_a_terminal_that_stops_reading_is_waited_for(run: RunDirectory, goes_on: Callable[[str], None]) -> None:
    with opened(PtyApp(OPEN_APP)) as terminal:
        stop_reading(terminal, terminal.process.pid)
        before = cpu_seconds(terminal.process.pid)
        time.sleep(2)
        assert cpu_seconds(terminal.process.pid) - before < 1
        goes_on("terminal that stops reading")
        terminal.pump(0.5)
        terminal.type("q")
        assert terminal.wait_for_exit() == 0 and is_restored(terminal)


def test_a_terminal_that_stops_reading_does_not_keep_the_app(run: RunDirectory, goes_on: Callable[[str], None]) -> None:
    # Under a shell, as in real life: when the first process of a terminal ends, what was not read is lost.
    with opened(PtyApp([sys.executable, "-c", AS_A_SHELL, *OPEN_APP])) as terminal:
        (app,) = map(
            int, Path(f"/proc/{terminal.process.pid}/task/{terminal.process.pid}/children").read_text().split()
        )
        stop_reading(terminal, app)
        os.kill(app, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{app}").exists())
        terminal.wait_for(lambda: is_cooked(terminal) and is_restored(terminal))
        terminal.type("\n")
        assert terminal.wait_for_exit() == signal.SIGTERM
    goes_on("SIGTERM while the terminal does not read")


def test_an_app_in_the_background_ends_and_touches_nothing(run: RunDirectory, goes_on: Callable[[str], None]) -> None:
    with opened(PtyApp(OPEN_APP)) as terminal:
        terminal.type("\x1a")
        terminal.wait_for(
            lambda: state_of(terminal.process.pid) == "T" and is_cooked(terminal) and is_restored(terminal)
        )
        terminal.wait_until_quiet()
        written = len(terminal.written)
        # As a shell does it when it is left, or asked to kill a job that is stopped.
        terminal.process.terminate()
        terminal.process.send_signal(signal.SIGCONT)
        assert terminal.wait_for_exit() == -signal.SIGTERM
        assert len(terminal.written) == written
    goes_on("SIGTERM to the app in the background")


def test_an_app_that_was_stopped_without_a_warning_takes_its_terminal_again(
    run: RunDirectory, goes_on: Callable[[str], None]
) -> None:
    with opened(PtyApp(OPEN_APP)) as terminal:
        before = termios.tcgetattr(terminal.master)
        app = terminal.process
        app.send_signal(signal.SIGSTOP)
        wait_for(lambda: state_of(app.pid) == "T")
        cooked = [*before[:3], before[3] | termios.ECHO | termios.ICANON | termios.ISIG, *before[4:]]
        termios.tcsetattr(terminal.master, termios.TCSANOW, cooked)  # as a shell does
        terminal.wait_until_quiet()
        terminal.screen.reset()
        app.send_signal(signal.SIGCONT)
        terminal.wait_for("● running")  # drawn anew, though nothing changed
        terminal.wait_for(lambda: termios.tcgetattr(terminal.master)[3] == before[3])
        terminal.screen.reset()
        app.send_signal(signal.SIGCONT)  # for one that was never stopped
        terminal.wait_for("● running")  # what is typed while it takes the terminal is dropped
        terminal.type("q")
        assert terminal.wait_for_exit() == 0
        assert is_cooked(terminal) and is_restored(terminal)
    goes_on("SIGSTOP and SIGCONT to the app")


def test_the_reader_of_watch_goes_away(run: RunDirectory, goes_on: Callable[[str], None]) -> None:
    watched = subprocess.run(
        f"{sys.executable} -m tui watch latest --json | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    event, status = watched.stdout.splitlines()
    assert '"seq": 1' in event and status == "141" and watched.stderr == ""
    goes_on("reader of watch gone")


def test_nobody_reads_what_watch_writes(run: RunDirectory, goes_on: Callable[[str], None]) -> None:
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen([*OPEN_APP, "watch", "latest", "--json"], stdout=write_end) as watching:
        os.close(write_end)

        def is_full() -> bool:
            """Whether its next event has no room: of a long one not even a part is taken."""
            return Path(f"/proc/{watching.pid}/wchan").read_text().endswith("pipe_write")

        wait_for(is_full)
        before = cpu_seconds(watching.pid)
        goes_on("full pipe on stdout")
        time.sleep(1)
        assert cpu_seconds(watching.pid) - before < 0.5
        watching.kill()
    os.close(read_end)


def test_a_run_ends_though_nobody_reads_what_its_starter_writes(
    finetui: Finetui, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "full pipe on stdout from the start"
    with_worker = finetui.with_environment(FINETUI_WORKER_COMMAND=f"{sys.executable} {WORKER}", SCRIPTED_STEPS="20")
    command = with_worker.argv("train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--wait")
    read_end, write_end = os.pipe()
    held = os.write(write_end, bytes(fcntl.fcntl(write_end, fcntl.F_GETPIPE_SZ)))
    with subprocess.Popen(command, env=with_worker.environ(), stdout=write_end, stderr=write_end) as starter:
        os.close(write_end)
        ledger.injected(kind)
        monkeypatch.setenv("FINETUI_HOME", str(finetui.home))
        wait_for(lambda: any(read_state(run).outcome for run in list_runs()))
        (run,) = list_runs()
        if read_state(run).outcome != "finished":
            ledger.lost(kind)
        assert read_state(run).outcome == "finished"
        assert starter.poll() is None  # it has words that nobody took
        with os.fdopen(read_end, "rb") as pipe:
            said = pipe.read()[held:].decode()
        assert starter.wait() == 0
    assert "finished" in said and "Traceback" not in said


def test_the_starter_that_waits_is_killed(finetui: Finetui, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with_worker = finetui.with_environment(FINETUI_WORKER_COMMAND=f"{sys.executable} {WORKER}", SCRIPTED_STEPS="100")
    command = with_worker.argv("train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--wait")
    with subprocess.Popen(command, env=with_worker.environ(), stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        for line in starter.stdout:
            if "training" in line or "step" in line:
                break
        starter.kill()
    ledger.injected("starter that waits killed")
    monkeypatch.setenv("FINETUI_HOME", str(finetui.home))
    found = find_run("latest")
    wait_for(lambda: liveness(found) != "live")
    if read_state(found).outcome != "finished":
        ledger.lost("starter that waits killed")
    assert read_state(found).outcome == "finished"
