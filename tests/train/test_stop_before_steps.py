"""A stop that is asked for while a run is prepared ends it at once, and takes no other command away."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
import tiny
from training import make_spec, write_chats

from engine.run.creating import create_run
from engine.run.processes.channel import CHANNEL_VARIABLE, Channel
from engine.run.telemetry.records import from_line, to_line
from engine.train.worker import main


@pytest.fixture
def ends():
    """The supervisor's end of a channel and the worker's."""
    usual = signal.getsignal(signal.SIGTERM)
    supervisor, worker = socket.socketpair()
    yield supervisor, worker
    supervisor.close()
    signal.signal(signal.SIGTERM, usual)


def test_a_stop_is_noticed_and_stays_among_the_commands(ends):
    supervisor, worker = ends
    channel = Channel(worker)
    supervisor.sendall(to_line({"command": "sample"}))
    assert not channel.stop_is_asked()
    supervisor.sendall(to_line({"command": "stop"}) + b'{"command": "sa')
    assert channel.stop_is_asked()
    assert channel.commands() == ["sample", "stop"]
    assert not channel.stop_is_asked()
    supervisor.close()
    assert channel.stop_is_asked() and channel.commands() == ["stop"]


def test_a_run_that_is_stopped_while_it_is_prepared_ends_before_its_model_is_loaded(
    ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    supervisor, worker = ends
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(CHANNEL_VARIABLE, str(worker.detach()))
    run = create_run(make_spec(tiny.make_model(tmp_path / "model"), write_chats(tmp_path / "chats.jsonl", 64)))
    supervisor.sendall(to_line({"command": "stop"}))
    assert main([str(run.path)]) == 0
    told = [from_line(line) for line in supervisor.recv(1 << 20).splitlines()]
    assert [each["phase"] for each in told if each["kind"] == "phase"] == ["preparing", "preparing"]
    assert told[-1]["outcome"] == "stopped" and "before any step was taken" in told[-1]["why"]
