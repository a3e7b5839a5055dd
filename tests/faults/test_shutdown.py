"""The machine shuts down: SIGTERM comes to all of a run's processes, in any order. One checkpoint, one end, no loss."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from fault_ledger import Ledger
from killing import a_spec, quiet_threads
from waiting import events_of, wait_until

from engine.run.directory import RunDirectory
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.marked import own_processes
from engine.run.processes.orphans import interrupted_runs
from engine.run.processes.recorded import recorded_processes
from engine.run.summary import summarise
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec

Script = Callable[..., None]

LONG = ("train", 100_000, 0.01)
# What systemd gives a user's processes between SIGTERM and SIGKILL, and what `shutdown` does at least.
PATIENCE_SECONDS = 90


def shut_down(run: RunDirectory, order: tuple[str, ...], ledger: Ledger) -> None:
    """SIGTERM to each process in this order, and to whatever else belongs to the run."""
    processes = recorded_processes(run)
    for name in order:
        if name in processes:
            processes[name].send(signal.SIGTERM)
    for seen in own_processes():
        if seen.belongs_to(run) and seen.identity not in processes.values():
            seen.identity.send(signal.SIGTERM)
    ledger.injected("SIGTERM to all processes, as at a shutdown")


def check_the_end(run: RunDirectory) -> None:
    """Everything is gone in time, and the journal has one end, which says that it was no person's wish."""
    wait_until(lambda: liveness(run) != "live", PATIENCE_SECONDS)
    wait_until(lambda: not [seen for seen in own_processes() if seen.belongs_to(run)], PATIENCE_SECONDS)
    ends = [event for event in events_of(run) if event["kind"] == "end"]
    assert [(end["outcome"], end["cause"]) for end in ends] == [("stopped", "stopped")], ends
    assert interrupted_runs() == [run] and summarise(run).interrupted


@pytest.mark.parametrize("order", list(itertools.permutations(("supervisor", "worker"))))
@pytest.mark.parametrize("between_seconds", [0.0, 0.3])
def test_one_checkpoint_and_one_end_whoever_hears_first(
    spec: RunSpec, script: Script, order: tuple[str, ...], between_seconds: float, ledger: Ledger
):
    script(LONG)
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 2)
    shut_down(run, order[:1], ledger)
    time.sleep(between_seconds)
    shut_down(run, order, ledger)
    check_the_end(run)
    saved = [event["step"] for event in events_of(run) if event["kind"] == "checkpoint"]
    steps = [event["step"] for event in events_of(run) if event["kind"] == "step"]
    assert saved == [steps[-1]]
    resume(run)
    wait_until(lambda: read_state(run).step > steps[-1])
    assert read_state(run).resumed_from == saved[0]
    stop(run)
    wait_until(lambda: liveness(run) != "live")
    assert interrupted_runs() == [], "that a person asked for"


def test_a_save_that_goes_on_is_finished(spec: RunSpec, script: Script, ledger: Ledger):
    script(["send", "note", {"text": "ready"}], ["save_slowly", 1.5])
    run = launch(spec)
    wait_until(lambda: any(event.get("text") == "ready" for event in events_of(run)))
    for _ in range(3):  # an impatient shutdown repeats itself
        shut_down(run, ("worker", "supervisor"), ledger)
        time.sleep(0.2)
    wait_until(lambda: liveness(run) != "live", PATIENCE_SECONDS)
    assert (run.checkpoints / "step-000007").is_dir()


AT_ONCE = 0.05
"""Seconds after the start: while the trainer's Python starts."""
LATER = [pytest.param(each, marks=pytest.mark.slow) for each in range(1, 9)]


@pytest.mark.parametrize("delay", [AT_ONCE, *LATER])
def test_a_real_training_ends_promptly_in_whatever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay: float, ledger: Ledger
):
    """Starting, importing, preparing, loading, measuring, training, saving: and it is learnt to its end afterwards."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    quiet_threads()
    run = launch(a_spec(tmp_path, tiny.make_model(tmp_path / "llama")))
    time.sleep(delay)
    order = random.Random(delay).sample(("supervisor", "worker"), 2)
    was_live = liveness(run) == "live"
    shut_down(run, tuple(order), ledger)
    wait_until(lambda: liveness(run) != "live", PATIENCE_SECONDS)
    if was_live and read_state(run).outcome != "finished":
        check_the_end(run)
        saved = [event["step"] for event in events_of(run) if event["kind"] == "checkpoint"]
        assert len(saved) == len(set(saved)) and read_state(run).step == max(saved, default=0)
    if delay == AT_ONCE:
        return  # the rest is in the whole list
    if read_state(run).outcome != "finished":
        resume(run)
    wait_until(lambda: liveness(run) != "live", 3 * PATIENCE_SECONDS)
    assert read_state(run).outcome == "finished", os.linesep.join(run.log_path.read_text().splitlines()[-30:])
