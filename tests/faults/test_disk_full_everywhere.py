"""A disk that is full for a moment at each system call by which a run's processes write: told, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import system_calls
from fault_ledger import Ledger
from waiting import wait_until

from engine.run.directory import RunDirectory, list_runs
from engine.run.launch import launch, resume
from engine.run.liveness import liveness
from engine.run.summary import summarise
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from profiles.problem import Problem

KIND = "disk full at one write"


@pytest.mark.parametrize("every", [131, pytest.param(1, marks=pytest.mark.slow)])
def test_a_worker_that_meets_a_full_disk_waits_or_ends_in_words_and_the_end_is_the_same(
    tmp_path: Path, ledger: Ledger, every: int
):
    shares = 1 if every > 1 else max(1, (os.cpu_count() or 2) - 1)
    script = Path(__file__).with_name("disks_under_faults.py")
    preload = {"LD_PRELOAD": str(system_calls.library()), "OMP_NUM_THREADS": "1"}

    def told_by(share: int) -> list[dict[str, Any]]:
        command = [sys.executable, str(script), str(tmp_path), str(every), str(share), str(shares)]
        done = subprocess.run(command, env=os.environ | preload, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(shares) as pool:
        outcomes = [outcome for told in pool.map(told_by, range(shares)) for outcome in told]
    assert len(outcomes) > 2
    for outcome in outcomes:
        ledger.injected(KIND)
        ledger.resumed(KIND, outcome["exact"])
        assert outcome["exact"], outcome
        if outcome["outcome"] != "finished":
            # Nothing was learnt yet, or it could not wait: then it says what is wrong, once.
            assert (outcome["status"], outcome["cause"], outcome["problems"]) == (2, "disk_full", 1), outcome
            assert "the disk is full" in outcome["why"], outcome


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_a_supervisor_that_meets_a_full_disk_goes_on_or_is_not_started(
    tmp_path: Path,
    spec: RunSpec,
    script: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    ledger: Ledger,
    home: Path,
    every: int,
):
    script(["train", 8, 0.0], ["save"])
    calls = _calls_of_a_run(spec, monkeypatch, tmp_path, home)
    for at in range(1, calls + 1, every):
        counter = tmp_path / f"calls-{at}"
        with monkeypatch.context() as armed:
            for name, value in system_calls.environment(
                home, at, errno.ENOSPC, count_to=counter, times=3, log_to=tmp_path / "log"
            ).items():
                armed.setenv(name, value)
            ledger.injected(f"{KIND} of the supervisor")
            run = _launch_and_wait(spec, at)
        if read_state(run).outcome != "finished":
            resume(run)  # there is room again
            wait_until(lambda run=run: liveness(run) != "live")
        state = read_state(run)
        assert (state.outcome, state.step) == ("finished", 8), (at, summarise(run).why)


def _calls_of_a_run(spec: RunSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path) -> int:
    """How many calls the processes of an undisturbed run make, its worker's among them."""
    counter = tmp_path / "calls"
    with monkeypatch.context() as armed:
        for name, value in system_calls.environment(home, count_to=counter).items():
            armed.setenv(name, value)
        run = launch(spec)
        wait_until(lambda: liveness(run) != "live")
    assert read_state(run).outcome == "finished"
    return system_calls.count_of(counter)


def _launch_and_wait(spec: RunSpec, at: int) -> RunDirectory:
    """A run that is over, or was refused to start with words that say why."""
    before = {run.name for run in list_runs()}
    try:
        run = launch(spec)
    except Problem as problem:
        assert "full" in str(problem) or "No space" in str(problem), (at, str(problem))
        return next(run for run in list_runs() if run.name not in before)
    wait_until(lambda: liveness(run) != "live")
    return run
