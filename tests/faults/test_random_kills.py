"""SIGKILL of worker, supervisor and app at moments of chance: nothing complete is lost, and the end is the same."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
from fault_ledger import Ledger
from killing import Survivor, a_spec, quiet_threads, undisturbed, wait_until
from pty_app import PtyApp

from engine.run.launch import launch
from engine.run.liveness import liveness
from engine.run.telemetry.reading import read_state

KILLS_A_RUN = 10
RUNS = 20
"""With KILLS_A_RUN: 200 kills of the engine."""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    quiet_threads()


def test_a_run_that_is_killed_a_few_times_ends_as_one_that_is_left_alone(tmp_path: Path, ledger: Ledger):
    spec = a_spec(tmp_path, tiny.make_model(tmp_path / "llama"))
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    Survivor(spec, undisturbed(spec), ledger, random.Random(seed)).live_through(3)


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing(tmp_path: Path, ledger: Ledger):
    spec = a_spec(tmp_path, tiny.make_model(tmp_path / "llama"))
    expected = undisturbed(spec)
    seeds = [random.SystemRandom().randrange(1 << 32) for _ in range(RUNS)]
    print(f"seeds {seeds}")
    survivors = [Survivor(spec, expected, ledger, random.Random(seed)) for seed in seeds]
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2)) as pool:
        list(pool.map(lambda survivor: survivor.live_through(KILLS_A_RUN), survivors))
    repeated = [steps for survivor in survivors for steps in survivor.repeated]
    print(f"{sum(survivor.kills for survivor in survivors)} kills, {max(repeated)} steps repeated at most")


@pytest.mark.slow
def test_the_death_of_the_app_is_nothing_to_the_run(tmp_path: Path, ledger: Ledger):
    """Sixty apps on terminals of their own, killed from before their first text until long after."""
    spec = a_spec(tmp_path, tiny.make_model(tmp_path / "llama"))
    expected = undisturbed(spec)
    survivor = Survivor(spec, expected, ledger, random.Random(7), victims=("worker",))
    generator = random.Random(11)

    def watch_and_die() -> None:
        with PtyApp([sys.executable, "-m", "tui"]) as app:
            deadline = time.monotonic() + generator.uniform(0.05, 2.0)
            while time.monotonic() < deadline:
                app.pump(0.05)
            os.kill(app.process.pid, signal.SIGKILL)
            app.process.wait()
        ledger.injected("SIGKILL of the app")

    for _ in range(6):
        run = launch(spec)
        for _ in range(10):
            watch_and_die()
        wait_until(lambda run=run: liveness(run) != "live", run)
        assert read_state(run).attempts == 1
        survivor.compare(run)
