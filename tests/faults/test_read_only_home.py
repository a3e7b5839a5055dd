"""A home that cannot be written to: what goes on waits, what would begin is refused in words, what is there shows."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import system_calls
import tiny
from command import REPOSITORY, Finetui
from fault_ledger import Ledger
from training import make_spec, write_chats
from waiting import wait_until

from engine.run.control import ask
from engine.run.launch import launch
from engine.run.liveness import liveness
from engine.run.processes.worker_process import COMMAND_VARIABLE
from engine.run.summary import summarise
from engine.run.telemetry.reading import read_state

# Calls from this one on are refused; a run makes far fewer, so that they are once the count is set to it.
_FROM = 1 << 40


def test_a_run_waits_for_a_disk_that_turned_read_only(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    """As the kernel makes a disk after errors, with files open for writing: no mount of a test's own can be made so."""
    home, counter, fifo = tmp_path / "home", tmp_path / "calls", tmp_path / "go on"
    os.mkfifo(fifo)
    trainer = [sys.executable, str(Path(__file__).with_name("waiting_trainer.py")), str(fifo)]
    monkeypatch.setenv(COMMAND_VARIABLE, shlex.join(trainer))
    monkeypatch.setenv("FINETUI_SEAL_WRITE", str(fifo))
    monkeypatch.setenv("FINETUI_HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    spec = make_spec(
        tiny.make_model(tmp_path / "llama"),
        write_chats(tmp_path / "rows.jsonl", 24),
        train={"max_steps": 60, "probe": False},
        checkpoint={"every_steps": 30},
    )
    with monkeypatch.context() as armed:
        for name, value in system_calls.environment(home, _FROM, errno.EROFS, count_to=counter, times=0).items():
            armed.setenv(name, value)
        run = launch(spec)
    wait_until(lambda: read_state(run).step == 3, seconds=120)
    system_calls.set_count(counter, _FROM)
    fifo.write_bytes(b"")
    ledger.injected("disk turned read-only")
    # Nothing can be journalled now; the engine itself still answers.
    wait_until(lambda: ask(run, "status")["phase"] == "paused", seconds=120)
    assert summarise(run).state == "running"
    system_calls.set_count(counter, 0)
    wait_until(lambda: liveness(run) != "live", seconds=120)
    state = read_state(run)
    assert (state.outcome, state.step) == ("finished", 60), (state.why, run.log_path.read_text()[-3000:])
    assert any("could not be written" in note for note in state.notes), state.notes
    assert (run.outputs / "adapter" / "adapter_model.safetensors").is_file()


def test_commands_on_a_read_only_home_answer_in_sentences(tmp_path: Path, finetui: Finetui, ledger: Ledger):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    home, model = tmp_path / "home", tiny.make_model(tmp_path / "llama")
    home.mkdir()
    program = f"{sys.executable} -m tui"
    commands = (
        f"mount -t tmpfs -o ro home {home} && {program} runs && "
        f"{program} train --model {model} --data {write_chats(tmp_path / 'rows.jsonl', 24)} 2>&1 || echo status $?"
    )
    said = subprocess.run(
        ["unshare", "-rm", "sh", "-c", commands],
        capture_output=True,
        text=True,
        check=True,
        env=finetui.environ(),
        cwd=REPOSITORY,
    ).stdout
    ledger.injected("home read-only from the start")
    assert "No runs yet" in said
    assert "the disk is read-only" in said and "set FINETUI_HOME to a folder that you can write to" in said
    assert said.splitlines()[-1] == "status 2"
    assert "Traceback" not in said
