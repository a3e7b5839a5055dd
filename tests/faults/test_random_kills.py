"""SIGKILL of worker, supervisor and app at moments of chance: nothing complete is lost, and the end is the same."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
from fault_ledger import Ledger
from killing import Result, Survivor, a_spec, quiet_threads, undisturbed, wait_until
from pty_app import PtyApp

from engine.run.launch import launch
from engine.run.liveness import liveness
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec

PARTS, RUNS, KILLS_A_RUN = 10, 2, 10
"""200 kills of the engine, in parts that take a minute or two each."""


@pytest.fixture(scope="module")
def undisturbed_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunSpec, Result]]:
    """What all of these tests train, and what becomes of it where nobody kills anything."""
    folder = tmp_path_factory.mktemp("undisturbed")
    quiet_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUI_HOME", str(folder / "home"))
        spec = a_spec(folder, tiny.make_model(folder / "llama"))
        yield spec, undisturbed(spec)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, undisturbed_run: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))


def test_a_run_that_is_killed_a_few_times_ends_as_one_that_is_left_alone(
    undisturbed_run: tuple[RunSpec, Result], ledger: Ledger
):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    Survivor(*undisturbed_run, ledger, random.Random(seed)).live_through(2)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_two_hundred_kills_lose_nothing(undisturbed_run: tuple[RunSpec, Result], ledger: Ledger, part: int):
    seeds = [random.SystemRandom().randrange(1 << 32) for _ in range(RUNS)]
    print(f"seeds {seeds}")
    survivors = [Survivor(*undisturbed_run, ledger, random.Random(seed)) for seed in seeds]
    with ThreadPoolExecutor(RUNS) as pool:
        list(pool.map(lambda survivor: survivor.live_through(KILLS_A_RUN), survivors))
    repeated = [steps for survivor in survivors for steps in survivor.repeated]
    print(f"{sum(survivor.kills for survivor in survivors)} kills, {max(repeated)} steps repeated at most")


@pytest.mark.slow
def test_the_death_of_the_app_is_nothing_to_the_run(undisturbed_run: tuple[RunSpec, Result], ledger: Ledger):
    """Sixty apps on terminals of their own, killed from before their first text until long after."""
    spec, expected = undisturbed_run
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
