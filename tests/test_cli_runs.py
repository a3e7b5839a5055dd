"""A run's life from the command line: train, runs, watch, show, stop, resume.

The engine is real; its worker is `scripted_worker.py`, so that a run takes a second.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from command import ENGINE_SECONDS, REPOSITORY, Finetui
from locked import held

from engine.demo import HELD_OUT_FILE, MODEL_DIRECTORY, TRAIN_FILE
from engine.run.directory import RunDirectory

LONG = "1000000"
WORKER = Path(__file__).with_name("scripted_worker.py")


@pytest.fixture
def cli(finetui: Finetui) -> Finetui:
    return finetui.with_environment(FINETUI_WORKER_COMMAND=f"{sys.executable} {WORKER}")


@pytest.fixture
def long_run(cli: Finetui):
    """A live run that goes on until it is stopped, by its name; its trainer has begun."""
    name = train(cli.with_environment(SCRIPTED_STEPS=LONG))["run"]
    deadline = time.monotonic() + ENGINE_SECONDS
    while cli("show", name, "--json").json()["attempts"] < 1:
        assert time.monotonic() < deadline
    yield name
    if state_of(cli, name) in ("running", "preparing"):
        cli("stop", name)
        cli("watch", name)


def train(cli: Finetui, *more: str) -> dict[str, Any]:
    result = cli("train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--name", "clinic", "--json", *more)
    assert result.status == 0, result.stderr
    return result.json_lines()[0]


def state_of(cli: Finetui, name: str) -> str:
    return next(run["state"] for run in cli("runs", "--json").json() if run["name"] == name)


def read_until(terminal: int, text: bytes) -> bytes:
    """What comes out of a pseudo-terminal until `text` is in it."""
    seen = b""
    deadline = time.monotonic() + ENGINE_SECONDS
    while text not in seen:
        assert time.monotonic() < deadline, f"{text!r} did not come; this did: {seen!r}"
        ready, _, _ = select.select([terminal], [], [], 1)
        if ready:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # nobody is left at the other end
                assert text in seen, f"the command ended without {text!r}: {seen!r}"
    return seen


def test_a_run_from_start_to_end(cli: Finetui):
    result = cli("train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--held-out", HELD_OUT_FILE,
                 "--name", "clinic", "--set", "method.rank=8", "--wait")  # fmt: skip
    assert result.status == 0, result.stderr
    for words in (
        "plan: 5 steps of 4 rows, 20 training rows, 1 set aside, 2.5 k tokens",
        "held-out loss 2.500 before training, exact match 0 % of 2 answers",
        "finished at step 5",
        "exact match       0 %  100 %",
    ):
        assert words in result.stdout

    (run,) = cli("runs", "--json").json()
    assert (run["state"], run["step"], run["planned_steps"], run["held_out_loss"]) == ("finished", 5, 5, 0.4)
    assert "✓ finished" in cli("runs").stdout
    assert cli("runs", "--ascii").stdout.isascii() and cli("show", "latest", "--ascii").stdout.isascii()

    shown = cli("show", "latest", "--json").json()
    assert shown["spec"]["method"]["rank"] == 8
    assert shown["outputs"]["adapter"] == str(Path(run["path"]) / "outputs/adapter")
    assert shown["samples"][0]["tuned"] == '{"a":1}'
    assert "5/5" in cli("show", "clinic").stdout

    events = cli("watch", "latest", "--json").json_lines()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["kind"] == "end"


def test_a_spec_file_gives_the_run_its_settings(cli: Finetui, tmp_path: Path):
    written = cli("train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--set", "train.epochs=3", "--dry-run")
    assert written.status == 0, written.stderr
    assert cli("runs", "--json").json() == []
    spec = tmp_path / "spec.toml"
    spec.write_text(written.stdout)

    result = cli("train", spec, "--name", "again", "--set", "method.rank=4", "--wait", "--json")
    assert result.status == 0, result.stderr
    shown = cli("show", "again", "--json").json()
    assert (shown["spec"]["train"]["epochs"], shown["spec"]["method"]["rank"]) == (3.0, 4)


def test_a_person_has_the_trainer_restarted(cli: Finetui, long_run: str):
    asked = cli("restart", long_run)
    assert asked.status == 0 and "another trainer" in asked.stdout, asked.stderr
    deadline = time.monotonic() + ENGINE_SECONDS
    while (shown := cli("show", long_run, "--json").json())["attempts"] < 2:
        assert time.monotonic() < deadline
    (restart,) = shown["restarts"]
    assert "a person asked" in restart["what"]
    assert "restarted once" in cli("show", long_run).stdout
    assert cli("restart", "nosuch").status == 2


def test_stop_and_resume(cli: Finetui, long_run: str):
    assert cli("stop", long_run).status == 0
    watched = cli("watch", long_run)
    assert watched.status == 3
    assert "stopped at step" in watched.stdout
    assert state_of(cli, long_run) == "stopped"

    again = cli("resume", long_run, "--wait")
    assert again.status == 0, again.stderr
    assert state_of(cli, long_run) == "finished"
    finished = cli("resume", long_run)
    assert finished.status == 2
    assert "fix: " in finished.stderr


def test_a_worker_that_is_killed_fails_the_run_with_the_reason(cli: Finetui):
    result = cli.with_environment(SCRIPTED_END="died")(
        "train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--wait"
    )
    assert result.status == 1
    assert "killed from outside" in result.stdout + result.stderr


def test_ctrl_c_leaves_the_run_going(cli: Finetui, long_run: str):
    terminal, end = pty.openpty()
    with subprocess.Popen(
        cli.argv("watch", long_run),
        env=cli.environ(),
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
    ) as watching:
        os.close(end)
        # The line that is drawn over: it begins at the left edge and wipes what was there.
        read_until(terminal, b"\r\x1b[Kstep ")
        watching.send_signal(signal.SIGINT)
        said = read_until(terminal, b"finetui stop")
        assert watching.wait(ENGINE_SECONDS) == 130
    os.close(terminal)
    assert f"{long_run} goes on".encode() in said
    assert b"Traceback" not in said
    assert state_of(cli, long_run) == "running"


def test_the_demo_opens_the_app_on_a_terminal_and_goes_on_without_it(cli: Finetui):
    slow = cli.with_environment(SCRIPTED_STEPS=LONG)
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(
        slow.argv("demo"), env=slow.environ(), stdin=end, stdout=end, stderr=end, start_new_session=True
    ) as demo:
        os.close(end)
        read_until(terminal, b"quit")
        os.write(terminal, b"q")
        said = read_until(terminal, b"finetui watch")
        assert demo.wait(ENGINE_SECONDS) == 4
    os.close(terminal)
    assert b"goes on without the app" in said
    (run,) = cli("runs", "--json").json()
    assert run["state"] in ("running", "preparing")
    assert cli("stop", "latest").status == 0
    assert cli("watch", "latest").status == 3


def test_the_demo_tells_its_results(cli: Finetui):
    result = cli("demo")
    assert result.status == 0, result.stderr
    for words in ("held-out loss   2.500  0.400", 'tuned     {"a":1}', "adapter: /", "finetui chat"):
        assert words in result.stdout


def test_the_demo_fails_when_its_run_does(cli: Finetui):
    assert cli.with_environment(SCRIPTED_END="died")("demo").status == 1


def test_the_demo_spec_is_the_bundled_job():
    program = (
        "import json; from tui.commands.demo import demo_spec; print(json.dumps(demo_spec([]).model_dump(mode='json')))"
    )
    spec = json.loads(subprocess.check_output([sys.executable, "-c", program], cwd=REPOSITORY))
    assert spec["model"]["path"] == str(MODEL_DIRECTORY)
    assert spec["data"]["train"] == [str(TRAIN_FILE)]
    assert spec["data"]["held_out"] == str(HELD_OUT_FILE)


def test_a_run_whose_seal_is_tested_says_so(cli: Finetui):
    name = train(cli, "--wait")["run"]
    run = RunDirectory(cli.home / "runs" / name)
    whole = run.events_path.read_bytes().splitlines(keepends=True)
    begun = next(number for number, line in enumerate(whole, start=1) if b'"phase":"preparing"' in line)
    run.events_path.write_bytes(b"".join(whole[:begun]))  # as the engine had written it when the test began
    with held(run):
        assert "◐ testing the seal" in cli("runs").stdout and "◐ testing the seal" in cli("show", name).stdout
        (told,) = cli("runs", "--json").json()
    assert (told["state"], told["doing"]) == ("preparing", "testing the seal")
