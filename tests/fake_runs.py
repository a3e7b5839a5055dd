"""Fixtures: runs in a home of their own, with a fake worker in place of the trainer; what a test starts is ended after
it. For the conftest of the folders that want them."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.run.directory import list_runs
from engine.run.processes.recorded import recorded_processes
from engine.run.processes.worker_process import COMMAND_VARIABLE
from engine.spec import RunSpec, parse_spec


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """FINETUI_HOME, empty. What a test keeps beside it (marks, pipes, shims) is let through the workers' seal."""
    path = tmp_path / "home"
    monkeypatch.setenv("FINETUI_HOME", str(path))
    monkeypatch.setenv("FINETUI_SEAL_WRITE", str(tmp_path))
    yield path
    if not (path / "runs").is_dir():
        return
    for run in list_runs():
        for name in ("supervisor", "worker"):
            if process := recorded_processes(run).get(name):
                process.send(signal.SIGKILL)
                assert process.wait(60)


@pytest.fixture
def spec(home: Path) -> RunSpec:
    values = {"name": "notes", "model": {"path": "/models/base"}, "data": {"train": ["/data/train.jsonl"]}}
    return parse_spec(values, "the test's spec")


@pytest.fixture
def unsealed(spec: RunSpec) -> RunSpec:
    """`spec` without a seal, for what starts many workers and is not about them: to try a seal takes a second each."""
    return without_seal(spec)


def without_seal(spec: RunSpec) -> RunSpec:
    return spec.model_copy(update={"privacy": spec.privacy.model_copy(update={"seal": "off"})})


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what workers started from here on do: lists of an action of FakeWorker and its arguments."""

    def set_script(*actions: list[Any]) -> None:
        fake = Path(__file__).parent / "run" / "fake_worker.py"
        monkeypatch.setenv(COMMAND_VARIABLE, shlex.join([sys.executable, str(fake), json.dumps(actions)]))

    return set_script
