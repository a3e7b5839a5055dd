"""The command line itself: what it imports, how it ends, and that a fault is never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios

import pytest
from command import Finetui
from pty_app import PtyApp

from tui.cli import COMMANDS

HEAVY = {"torch", "transformers", "peft", "textual", "pydantic", "numpy"}


def imported(finetui: Finetui, *arguments: str) -> set[str]:
    """The top-level packages that a command imports."""
    result = finetui.with_environment(PYTHONPROFILEIMPORTTIME="1")(*arguments)
    assert result.status == 0, result.stderr
    names = [line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")]
    assert "argparse" in names
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["runs"], ["train", "--help"]])
def test_quick_commands_import_nothing_heavy(finetui: Finetui, arguments: list[str]):
    allowed = {"pydantic"} if arguments[0] == "train" else set()
    assert imported(finetui, *arguments) & HEAVY <= allowed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(finetui: Finetui, command: str):
    result = finetui(command, "--help")
    assert result.status == 0
    assert result.stdout.startswith(f"usage: finetui {command}")
    assert command in finetui("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["rnus"], "Did you mean finetui runs?"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["show"], "required: RUN"),
        (["export", "latest"], "required: --to"),
        (["export", "latest", "--to", "gguf"], "invalid choice: 'gguf'"),
        (["train", "--set"], "expected one argument"),
        (["train", "\x1b[31mred", "blue"], "unrecognized arguments: blue"),
        ([], "the app needs a terminal"),
    ],
)
def test_a_wrong_command_line_is_a_problem(finetui: Finetui, arguments: list[str], what: str):
    result = finetui(*arguments)
    assert result.status == 2
    assert what in result.stderr
    assert "fix: " in result.stderr
    assert result.stdout == ""


def test_output_that_nobody_reads_ends_the_command_quietly(finetui: Finetui):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        finetui.argv("runs"),
        env=finetui.environ(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_signal_while_the_app_is_being_started_leaves_the_terminal_as_it_was(finetui: Finetui):
    program = (
        "import os, signal, tui.leaving as leaving\n"
        "leaving.OutsideEnd.begin = lambda self: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from tui.app import FinetuiApp\n"
        "FinetuiApp().run()\n"
    )
    with PtyApp([sys.executable, "-c", program], finetui.environ()) as app:
        before = termios.tcgetattr(app.master)
        assert app.wait_for_exit() == -signal.SIGTERM
        assert termios.tcgetattr(app.master) == before
        assert app.written.rfind(b"\x1b[?1049l") > app.written.rfind(b"\x1b[?1049h") >= 0


def test_output_on_a_full_disk_is_a_problem(finetui: Finetui):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            finetui.argv("runs"),
            env=finetui.environ(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LANG": "en_US.ISO-8859-1"}, {"PYTHONIOENCODING": "ascii"}])
def test_other_encodings_never_break_the_output(finetui: Finetui, locale: dict[str, str]):
    # A name that neither ASCII nor Latin-1 has.
    (finetui.home / "runs").mkdir(parents=True)
    result = finetui.with_environment(**locale)("show", "見本")
    assert result.status == 2
    assert "there is no such run" in result.stderr


def test_a_fault_of_our_own_is_logged_whole_and_shown_short(finetui: Finetui):
    program = (
        "import sys, tui.cli, tui.commands.runs as runs\n"
        "def fail(): raise KeyError('the cause')\n"
        "runs.summaries = fail\n"
        "sys.exit(tui.cli.main(['runs']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=finetui.environ(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 70
    assert "KeyError: 'the cause'" in done.stderr
    assert "Traceback" not in done.stderr
    (log,) = (finetui.home / "faults").iterdir()
    assert str(log) in done.stderr
    assert "Traceback (most recent call last)" in log.read_text()
