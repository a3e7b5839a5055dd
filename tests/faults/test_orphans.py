"""What killed engines leave behind: found at the next start, told with the memory it holds, and ended on request."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Finetui
from fake_nvml import GIB, Board, FakeNvml
from fault_ledger import Ledger
from waiting import events_of, standing_still, wait_until

from engine.run.directory import RunDirectory
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.marked import RUN_VARIABLE
from engine.run.processes.orphans import find_orphans, interrupted_runs
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from profiles.machine import nvml

Script = Callable[..., None]

LONG = ("train", 100_000, 0.01)


def note(run: RunDirectory, words: str) -> str:
    texts = (event["text"] for event in events_of(run) if event["kind"] == "note")
    return next((text for text in texts if words in text), "")


def orphaned(run: RunDirectory, ledger: Ledger) -> None:
    """Kill the supervisor, and see that it is gone."""
    supervisor = recorded_processes(run)["supervisor"]
    assert supervisor.send(signal.SIGKILL) and supervisor.wait(10)
    # What read the devices for it ends by itself, once its Python is up.
    wait_until(lambda: [orphan.role for orphan in find_orphans()] == ["worker"])
    ledger.injected("SIGKILL of the supervisor, with a worker that hangs")


def test_a_worker_that_hangs_without_its_engine_is_found_told_and_ended(
    spec: RunSpec, script: Script, finetui: Finetui, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    script(["leave_child"], ["hang"])
    run = launch(spec)
    wait_until(lambda: note(run, "hanging"))
    assert find_orphans() == [] and interrupted_runs() == []
    worker = recorded_processes(run)["worker"]
    orphaned(run, ledger)

    (orphan,) = find_orphans()
    assert (orphan.run, orphan.identity, orphan.role, orphan.device) == (run, worker, "worker", "RAM")
    assert orphan.held_bytes > 1 << 20
    assert [child.pid for child in orphan.children] == [int(note(run, "child ").split()[1])]
    assert f"process {worker.pid}, the trainer of {run.name}, holds" in orphan.sentence()
    assert interrupted_runs() == [run]
    monkeypatch.setattr(nvml, "_import_pynvml", lambda: FakeNvml(Board("GPU-a"), Board("GPU-b", processes=on_gpu)))
    on_gpu = [(worker.pid, 9 * GIB), (os.getpid(), GIB)]
    (on_the_gpu,) = find_orphans()
    assert (on_the_gpu.device, on_the_gpu.held_bytes) == ("GPU 1", 9 * GIB)

    assert orphan.end(idle_seconds=0.5) == f"Process {worker.pid} of {run.name} was killed."
    assert not worker.is_alive() and not orphan.children[0].is_alive()
    assert find_orphans() == []
    ended = finetui("doctor", "--end-orphans")
    assert (ended.status, ended.stdout) == (0, "no process of a run was left behind\n")
    script(LONG)
    resume(run)
    wait_until(lambda: read_state(run).step > 0)


def test_the_command_ends_what_hangs(spec: RunSpec, script: Script, home: Path, finetui: Finetui, ledger: Ledger):
    """What was left of a trainer that is gone: it does not even ignore SIGTERM."""
    script(["leave_child"], ["hang"])
    run = launch(spec)
    wait_until(lambda: note(run, "hanging"))
    orphaned(run, ledger)
    worker = recorded_processes(run)["worker"]
    assert worker.send(signal.SIGKILL) and worker.wait(10)
    child = note(run, "child ").split()[1]
    (orphan,) = find_orphans()
    assert (orphan.role, orphan.identity.pid) == ("child", int(child))
    said = finetui("doctor", "--end-orphans")
    found, became = said.stdout.splitlines()
    assert said.status == 0 and found.startswith(
        f"ending process {child}, a helper of the trainer of {run.name}, holds "
    )
    assert became == f"  Process {child} of {run.name} has ended."
    assert not orphan.identity.is_alive()


@pytest.mark.parametrize("recorded", [True, False])
def test_the_next_start_ends_what_the_last_one_left(spec: RunSpec, script: Script, ledger: Ledger, recorded: bool):
    """Also a worker that nobody wrote down, since its supervisor was killed the moment it had started it."""
    script(["leave_child"], LONG)
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 0)
    worker = recorded_processes(run)["worker"]
    child = ProcessIdentity.of(int(note(run, "child ").split()[1]))
    if not recorded:
        run.pid_path.unlink()
    worker.send(signal.SIGSTOP)
    supervisor = next(pid for pid in _pids_of("engine.run.supervisor", run))
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: liveness(run) == "died")
    ledger.injected("SIGKILL of the supervisor, with a worker that is stopped")
    worker.send(signal.SIGCONT)
    resume(run)
    assert not worker.is_alive() and not child.is_alive()
    assert find_orphans() == []
    stop(run)
    wait_until(lambda: liveness(run) != "live")


def _pids_of(module: str, run: RunDirectory) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if module in words and str(run.path) in words:
                found.append(int(entry.name))
    return found


def test_a_worker_that_still_saves_is_waited_for(spec: RunSpec, script: Script, ledger: Ledger):
    """However long the save takes: only one that does nothing is killed."""
    # It begins when it is told again, by whoever ends it: else it might be done before it is found.
    script(["send", "note", {"text": "ready"}], ["await_stop"], ["save_slowly", 4])
    run = launch(spec)
    wait_until(lambda: note(run, "ready"))
    orphaned(run, ledger)
    (orphan,) = find_orphans()
    said: list[str] = []
    script(LONG)
    assert orphan.end(idle_seconds=2.5).endswith("has ended.")
    assert (run.checkpoints / "step-000007").is_dir()
    resume(run, tell=said.append)
    assert said == []


def test_an_engine_whose_folder_was_deleted_is_found(spec: RunSpec, script: Script, home: Path, ledger: Ledger):
    script(LONG)
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 0)
    processes = recorded_processes(run)
    with standing_still(processes["supervisor"]):  # which else might write there meanwhile
        shutil.rmtree(run.path)
    try:
        ledger.injected("a live run's folder is deleted")
        found = {orphan.role: orphan for orphan in find_orphans()}
        assert {role: orphan.identity for role, orphan in found.items()} == processes
        assert "whose folder is gone" in found["supervisor"].sentence()
        for role in ("supervisor", "worker"):
            assert found[role].end().startswith(f"Process {processes[role].pid} of {run.name} ")
            assert not processes[role].is_alive()
    finally:
        for process in processes.values():  # which nobody would find any more
            process.send(signal.SIGKILL)


def test_only_processes_of_this_homes_runs_are_orphans(spec: RunSpec, script: Script, tmp_path: Path):
    script(LONG)
    run = launch(spec)
    elsewhere = {**os.environ, RUN_VARIABLE: str(tmp_path / "other" / "runs" / run.name)}
    ours = {**os.environ, RUN_VARIABLE: str(run.path)}
    strangers = [
        subprocess.Popen([sys.executable, "-c", "input()"], env=each, stdin=subprocess.PIPE)
        for each in (elsewhere, ours)
    ]
    assert find_orphans() == [], "one belongs to another home, the other to a run that lives"
    stop(run)
    wait_until(lambda: liveness(run) != "live")
    # What read the devices for the run may be there still for a moment.
    wait_until(lambda: [orphan.identity.pid for orphan in find_orphans()] == [strangers[1].pid])
    (orphan,) = find_orphans()
    assert orphan.end().endswith("has ended.")
    for process in strangers:
        process.kill()
        process.communicate()
