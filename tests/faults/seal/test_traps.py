"""What a hostile worker leaves in its run's folder, which it may write, for the processes that are not sealed."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trapping_worker
from fault_ledger import Ledger
from made_up_home import made_up_home
from waiting import end_of, events_of, wait_until

from engine.run.directory import RunDirectory
from engine.run.launch import launch, resume
from engine.run.processes.worker_process import COMMAND_VARIABLE
from engine.seal.sealing import WITHOUT_VARIABLE
from engine.spec import RunSpec, parse_spec
from profiles.problem import Problem

VICTIM = "a person's file\n"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A made-up home folder with files of the person's; pytest's own folders are let through other tests' seals."""
    with made_up_home(monkeypatch, Path("/var/tmp")) as path:
        (path / "victims").mkdir()
        for name in (*trapping_worker.WRITTEN, *trapping_worker.KEPT, trapping_worker.VICTIM):
            (path / "victims" / name).write_text(VICTIM)
        os.utime(path / "victims" / trapping_worker.VICTIM, (0, 0))  # older than what is tidied away
        (path / "model").mkdir()
        (path / "rows.jsonl").write_text("{}\n")
        monkeypatch.setenv("VICTIMS", str(path / "victims"))
        monkeypatch.setenv(COMMAND_VARIABLE, shlex.join([sys.executable, trapping_worker.__file__]))
        yield path


@pytest.fixture
def spec(home: Path) -> RunSpec:
    values = {"name": "trap", "model": {"path": str(home / "model")}, "data": {"train": [str(home / "rows.jsonl")]}}
    return parse_spec(values, "a hostile run")


def go_on(run: RunDirectory) -> None:
    """Resume the run, as soon as its supervisor has gone; its worker may have taken away by what that is seen."""

    def resumed() -> bool:
        try:
            resume(run)
        except Problem as problem:
            if "running already" not in problem.what:
                raise
            return False
        return True

    wait_until(resumed)
    wait_until(lambda: [each["kind"] for each in events_of(run)].count("end") == 2)


def test_links_left_in_the_runs_folder_lead_nobody_astray(home: Path, spec: RunSpec, ledger: Ledger) -> None:
    """Were the log a link to what runs at the next log-in, the worker's words would be written there."""
    run = launch(spec)
    end_of(run)
    traps = json.loads((run.outputs / "traps.json").read_text())
    assert "done" in traps.values()  # it may write there, and did

    go_on(run)

    for name, outcome in traps.items():
        if outcome == "done":
            ledger.injected(f"trap left in a run's folder: {name}")
    left = {path.name: path.read_text() for path in (home / "victims").iterdir()}
    assert left == dict.fromkeys((*trapping_worker.WRITTEN, *trapping_worker.KEPT, trapping_worker.VICTIM), VICTIM)
    traps = json.loads((run.outputs / "traps.json").read_text())
    assert "done" not in (traps["read a victim"], traps["write a victim"])
    assert "said by a hostile worker" in run.log_path.read_text()


def test_what_was_asked_and_told_is_not_rewritten_where_a_namespace_holds(home: Path, spec: RunSpec) -> None:
    run = launch(spec)
    end_of(run)

    traps = json.loads((run.outputs / "traps.json").read_text())
    (seal,) = [event for event in events_of(run) if event["kind"] == "seal"]
    missing = {layer["layer"]: layer["why"] for layer in seal["layers"] if not layer["held"]}
    if "namespace" in missing:
        pytest.skip(f"this machine has no namespace: {missing['namespace']}")
    for name in trapping_worker.WRITTEN:
        # A link that it made, in what it has in this folder's place, is gone with it.
        assert traps[f"write {name}"] != "done" and not (run.path / name).is_symlink(), name
    assert run.spec().privacy.seal == "best"


def test_a_worker_that_unseals_its_run_gets_no_other_seal(
    home: Path, spec: RunSpec, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a namespace nothing is mounted read-only: what keeps it from what the run asks for is Landlock alone."""
    monkeypatch.setenv(WITHOUT_VARIABLE, "namespace")
    monkeypatch.setenv(trapping_worker.ONLY_VARIABLE, "spec.toml")
    run = launch(spec)
    end_of(run)
    assert "write spec.toml" in json.loads((run.outputs / "traps.json").read_text())  # it tried
    ledger.injected("a run's seal rewritten by its worker")

    with suppress(Problem):  # it may say so, and start nothing
        go_on(run)
    levels = {event["level"] for event in events_of(run) if event["kind"] == "seal"}
    assert levels == {"best"}
