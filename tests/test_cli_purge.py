"""`finetui purge`: a run goes with all that is kept of it, what others use stays, and a crash leaves no half of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import Finetui
from fault_ledger import Ledger
from pty_app import PtyApp
from recorded_runs import at_home, copy_home, train_recorded
from waiting import wait_until

from engine.export.request import export_run
from engine.run.directory import RunDirectory, list_runs
from engine.run.evidence.purging import plan_purge, purge
from engine.run.evidence.verifying import verify
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.lock import let_go, take_lock
from engine.run.processes.recorded import record_processes
from engine.seal.policy.caches import library_caches
from profiles.problem import Problem

_CANARY = b"quokkas-of-kuopio"
_REMOVING = {"os.remove", "os.rmdir", "os.rename"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one run that learnt from rows with a canary and was exported; beside it its base and data."""
    import tiny
    import training

    place = tmp_path_factory.mktemp("recorded")
    model = tiny.make_model(place / "base")
    rows = training.write_chats(place / f"{_CANARY.decode()}.jsonl", 48)
    with at_home(place / "home"):
        run = train_recorded(model, rows, name=_CANARY.decode())
        export_run(run, "adapter", place / "exported")
    return place


@pytest.fixture
def run(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A copy of it, in FINETUI_HOME."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    return copy_home(recorded / "home", tmp_path / "home")


def test_nothing_that_names_the_data_is_left_but_what_was_told(
    run: RunDirectory, recorded: Path, finetui: Finetui
) -> None:
    assert finetui("purge", run.name).status == 2  # nobody is there to be asked
    assert verify(run).holds
    library_caches(run.name).mkdir(parents=True, exist_ok=True)
    (library_caches(run.name) / "kernel.so").write_bytes(bytes(3 << 20))
    done = finetui("purge", run.name, "--yes")
    assert done.status == 0, done.stderr
    assert "what libraries compiled for it, 3.0 MiB" in done.stdout
    assert not library_caches(run.name).exists()
    for remains in (recorded / "exported", recorded / "base", recorded / f"{_CANARY.decode()}.jsonl", "backups"):
        assert str(remains) in done.stdout
    assert not run.path.exists() and finetui("runs", "--json").json() == []
    naming = [path for path in _files(finetui.home) if _CANARY in path.read_bytes() or _CANARY in os.fsencode(path)]
    assert naming == [finetui.home / "purged.jsonl"]
    (line,) = [json.loads(line) for line in naming[0].read_bytes().splitlines()]
    assert line["what"] == "purged" and line["who"]["uid"] == os.getuid()
    assert line["facts"]["run"] == str(run.path) and line["facts"]["remaining_exports"] == [str(recorded / "exported")]
    assert (recorded / "exported" / "README.md").is_file()


def test_shards_that_another_run_uses_stay(run: RunDirectory, finetui: Finetui) -> None:
    other = RunDirectory(run.path.with_name(f"{run.name[:-1]}z"))
    copy = finetui.home.with_name("other home")
    copy_home(finetui.home, copy)
    (copy / "runs" / run.name).rename(other.path)
    (shard,) = run.data.rglob("*.safetensors")
    cached = finetui.home / "cache" / "prepared" / shard.relative_to(run.data)
    plan = plan_purge(run)
    assert cached not in plan.caches.files and plan.caches.shared >= 1
    purge(plan)
    assert cached.is_file() and [each.name for each in list_runs()] == [other.name]
    plan = plan_purge(other)
    assert cached in plan.caches.files
    purge(plan)
    assert not cached.exists()


def test_a_live_run_is_not_removed(run: RunDirectory, finetui: Finetui) -> None:
    held = take_lock(run.lock_path)
    try:
        done = finetui("purge", run.name, "--yes")
    finally:
        let_go(held)
    assert done.status == 2 and "is live" in done.stderr and f"finetui stop {run.name}" in done.stderr
    assert verify(run).holds


def test_a_run_that_became_live_after_it_was_asked_is_not_removed(run: RunDirectory) -> None:
    plan = plan_purge(run)
    with at_home(Path(os.environ["FINETUI_HOME"])):
        taken = os.fork()
        if not taken:  # another process, since a lock is a process's own
            take_lock(run.lock_path)
            (run.path / "taken").touch()
            wait_until((run.path / "over").exists)
            os._exit(0)
        wait_until((run.path / "taken").exists)
        with pytest.raises(Problem, match="is live"):
            purge(plan)
        (run.path / "over").touch()
        os.waitpid(taken, 0)
    assert run.spec_path.is_file()


def test_an_engine_that_is_just_about_to_be_gone_is_waited_for(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is free before its process has ended."""
    wait = ProcessIdentity.wait
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as engine:
        record_processes(run, {"supervisor": ProcessIdentity.of(engine.pid)})

        def let_go_and_wait(process: ProcessIdentity, seconds: float) -> bool:
            assert engine.stdin is not None
            engine.stdin.close()
            return wait(process, seconds)

        monkeypatch.setattr(ProcessIdentity, "wait", let_go_and_wait)
        purge(plan_purge(run))
    assert not run.path.exists()


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_person_is_asked(run: RunDirectory, finetui: Finetui, answer: str) -> None:
    with PtyApp(finetui.argv("purge", run.name), finetui.environ(), columns=200) as app:
        app.wait_for("[y/N]")
        app.type(answer + "\r")
        assert app.wait_for_exit() == 0
    assert run.path.exists() is (answer == "n")


def test_a_crash_at_any_moment_leaves_the_run_or_what_the_next_purge_ends(
    recorded: Path, tmp_path: Path, ledger: Ledger
) -> None:
    removals = _crash_before(copy_home(recorded / "home", tmp_path / "counted"), tmp_path / "counted", 10_000)
    assert removals > 10
    for number in sorted({*range(6), *range(6, removals, 4), removals - 1}):
        home = tmp_path / f"crashed {number}"
        run = copy_home(recorded / "home", home)
        assert _crash_before(run, home, number) == number
        ledger.injected("a purge killed")
        with at_home(home):
            is_whole = bool(list_runs())
            assert not is_whole or verify(run).holds
        done = Finetui(home)("purge", run.name, "--yes")
        assert done.status == 0, done.stderr
        assert not run.path.exists() and not list((home / "purging").iterdir())
        left = [path for path in _files(home) if _CANARY in path.read_bytes()]
        assert [path.name for path in left] == ["purged.jsonl"]


def _crash_before(run: RunDirectory, home: Path, number: int) -> int:
    """Purge `run` in another process that is gone before its removal or renaming of this number; how many it did."""
    counter = home.with_name(f"{home.name} removals")
    child = os.fork()
    if not child:
        done = 0

        def count(event: str, arguments: object) -> None:
            nonlocal done
            if event in _REMOVING:
                if done == number:
                    counter.write_text(str(done))
                    os._exit(9)
                done += 1

        with at_home(home):
            plan = plan_purge(run)
            sys.addaudithook(count)
            purge(plan)
        counter.write_text(str(done))
        os._exit(0)
    os.waitpid(child, 0)
    return int(counter.read_text())


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
