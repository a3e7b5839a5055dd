"""The app on a real pty, with the real follower: what reaches the terminal, how much of it, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_run import make_run
from pty_app import PtyApp

REPOSITORY = Path(__file__).resolve().parents[2]
OPEN_APP = "from tui.app import FinetuiApp; FinetuiApp().run()"
LIVE_BUDGET = 2000
"""Bytes a second at 80x24 while a run takes a step a second."""


def app(home: Path, columns: int = 80, rows: int = 24, **environment: str) -> PtyApp:
    variables = {"FINETUI_HOME": str(home), "PYTHONPATH": str(REPOSITORY), **environment}
    return PtyApp([sys.executable, "-c", OPEN_APP], variables, columns, rows)


@pytest.fixture
def live_run(tmp_path: Path) -> Iterator[Path]:
    """The home folder of a run that takes a step a second."""
    player = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fake_run.py")), str(tmp_path), "intake", "--seconds", "120"],
        stdout=subprocess.PIPE,
    )
    assert player.stdout is not None and player.stdout.readline()
    yield tmp_path
    player.kill()
    player.wait()
    player.stdout.close()


def test_a_live_run_is_opened_and_a_step_costs_little(live_run: Path) -> None:
    with app(live_run) as terminal:
        terminal.wait_for("● running")
        terminal.wait_for("/1,200")
        terminal.wait_until_quiet(0.3)
        assert "27 of 27 probes refused" in terminal.text
        drawn = terminal.written.count(b"probes refused")
        seconds = 6
        bytes_per_second = terminal.pump(seconds) / seconds
        assert 0 < bytes_per_second < LIVE_BUDGET
        assert terminal.written.count(b"probes refused") == drawn  # the seal is drawn when it changes, and not before
        terminal.wait_until_quiet(0.2)  # between two frames
        # Drawing everything again must not change what is seen: the cells we did not write were right.
        pieced_together = terminal.text
        step = pieced_together[pieced_together.index("/1,200") - 3 :][:9]
        terminal.type("\x0c")
        terminal.wait_until_quiet(0.2)
        if step in terminal.text:  # no further step came meanwhile
            assert terminal.text == pieced_together
        terminal.type("q")
        assert terminal.wait_for_exit() == 0
        assert b"intake goes on" in terminal.written


def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    make_run(tmp_path, "intake", until=1200, outcome="finished")
    with app(tmp_path) as terminal:
        terminal.wait_for("✓ finished")
        terminal.type("\r")
        terminal.wait_for("0 % → 94 %")
        # The monitor, help, the palette and a dialog with an input: all of them keep still.
        for keys, shown in (("", "0 %"), ("?", "Monitor"), ("\x10", "Search for"), ("e", "into")):
            terminal.type(keys)
            terminal.wait_for(shown)
            terminal.wait_until_quiet(1.5)  # what ticks does so once a second, a cursor twice
            if keys:
                terminal.type("\x1b")
                terminal.wait_for(lambda shown=shown: shown not in terminal.text and "0 %" in terminal.text)


def test_the_terminal_is_as_it_would_be_drawn_anew(tmp_path: Path) -> None:
    make_run(tmp_path, "intake", until=1200, outcome="finished")
    make_run(tmp_path, "wide-名前", until=90, outcome="failed", planned=4000, started_at=1.76e9)
    with app(tmp_path) as terminal:
        terminal.wait_for("✓ finished")
        steps = [
            ("j", "wide-"),
            ("\r", "remedy"),
            ("vv", "prompt"),
            ("?", "Monitor"),
            ("\x1b", "prompt"),
            ("\x1b", "runs"),
        ]
        for keys, shown in steps:
            terminal.type(keys)
            terminal.wait_for(shown)
            terminal.wait_until_quiet(0.4)
        terminal.wait_for("of 3 layers")  # what can be sealed here is found out last
        terminal.resize(100, 30)
        terminal.wait_until_quiet(0.5)
        pieced_together = terminal.text
        terminal.type("\x0c")
        terminal.wait_until_quiet(0.5)
        # The gauges of this machine may move meanwhile; everything else stands as it was.
        assert _without_gauges(terminal.text) == _without_gauges(pieced_together)
        assert "wide-名 前" in terminal.text or "wide-名前" in terminal.text


def _without_gauges(text: str) -> list[str]:
    # They may take a line more or less.
    return [line for line in text.splitlines() if line and "GiB" not in line]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colours_none_is_written(tmp_path: Path, variables: dict[str, str]) -> None:
    make_run(tmp_path, "intake", until=300, outcome="stopped")
    with app(tmp_path, **variables) as terminal:
        terminal.wait_for("■ stopped")
        terminal.type("\r")
        terminal.wait_for("predicted")
        terminal.type("?")
        terminal.wait_until_quiet()
        assert b"38;" not in terminal.written and b"48;" not in terminal.written
        assert not any(b"\x1b[%dm" % code in terminal.written for code in (*range(30, 38), *range(40, 48)))


def test_a_terminal_that_is_not_utf8_gets_ascii_only(tmp_path: Path) -> None:
    make_run(tmp_path, "intake", until=1200, outcome="finished")
    with app(tmp_path, LC_ALL="C", PYTHONUTF8="1") as terminal:
        terminal.wait_for("+ finished")
        terminal.type("\r")
        terminal.wait_for("predicted")
        for keys in ("m", "v", "v", "?", "\x1b", "\x10", "\x1b", "e", "\x1b"):
            terminal.type(keys)
            terminal.wait_until_quiet(0.3)
        assert bytes(terminal.written).isascii()


def test_a_small_terminal_is_told_and_recovers(tmp_path: Path) -> None:
    with app(tmp_path, 20, 5) as terminal:
        terminal.wait_for("finetui needs 40x12")
        terminal.resize(80, 24)
        terminal.wait_for("No runs yet")
        terminal.resize(20, 5)
        terminal.wait_for("finetui needs 40x12")
        terminal.type("q")
        assert terminal.wait_for_exit() == 0


def test_a_hang_up_ends_the_app(tmp_path: Path) -> None:
    ignoring = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); {OPEN_APP}"
    variables = {"FINETUI_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    with PtyApp([sys.executable, "-c", ignoring], variables) as terminal:
        terminal.wait_for("No runs yet")
        terminal.process.send_signal(signal.SIGHUP)
        assert terminal.wait_for_exit() == -signal.SIGHUP


def test_a_fault_of_our_own_is_logged_whole_and_shown_short(tmp_path: Path) -> None:
    breaking = (
        "import sys; from tui.app import FinetuiApp; from tui.screens.home import HomeScreen; "
        "HomeScreen.show_runs = lambda self, runs: 1 / 0; app = FinetuiApp(); app.run(); sys.exit(app.return_code)"
    )
    variables = {"FINETUI_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    with PtyApp([sys.executable, "-c", breaking], variables) as terminal:
        assert terminal.wait_for_exit() == 70
        assert b"a fault of its own, ZeroDivisionError" in terminal.written
        assert b"Traceback" not in terminal.written
    (log,) = (tmp_path / "faults").iterdir()
    assert "Traceback" in log.read_text()


def test_suspending_goes_to_the_shell_and_comes_back(tmp_path: Path) -> None:
    with app(tmp_path) as terminal:
        terminal.wait_for("No runs yet")
        terminal.type("\x1a")
        terminal.wait_for(lambda: _state_of(terminal.process.pid) == "T")
        terminal.screen.reset()
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for("No runs yet")


def _state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
