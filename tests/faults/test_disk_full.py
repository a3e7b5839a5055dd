"""A disk without room: a run is not started on it, and one that meets it waits, says so, and goes on by itself."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_ledger import Ledger
from training import build_setup, losses, make_spec, train, write_chats

import engine.run.disk_room
import engine.train.checkpoints.writing
import engine.train.disk_wait
from engine.run.checkpoints.manifest import list_checkpoints
from engine.run.checkpoints.verifying import damage
from engine.run.creating import create_run
from engine.run.directory import list_runs
from engine.run.launch import launch
from engine.run.processes.channel import MemoryChannel
from engine.spec import RunSpec
from engine.train.recipe import Recipe
from profiles.problem import Problem

GIB = 1 << 30


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(engine.train.disk_wait, "ROOM_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(engine.train.disk_wait, "REFUSED_INTERVAL_SECONDS", 0.05)
    torch.set_num_threads(2)


def a_spec(tmp_path: Path, model: Path) -> RunSpec:
    rows = write_chats(tmp_path / "rows.jsonl", 24)
    return make_spec(model, rows, train={"max_steps": 4}, checkpoint={"every_steps": 2})


class Disk(MemoryChannel):
    """A disk whose free bytes a test sets, and the person who watches its run: `on_pause` acts at the third look."""

    def __init__(self, free: int, on_pause: Callable[[Disk], Any]):
        super().__init__()
        self.free, self._on_pause, self._looks = free, on_pause, 0

    def commands(self) -> list[str]:
        if self.phase == "paused":
            self._looks += 1
            if self._looks % 3 == 0:
                self._on_pause(self)
        return super().commands()

    @property
    def phase(self) -> str:
        return next((event["phase"] for event in reversed(self.events) if event["kind"] == "phase"), "")

    def pauses(self) -> list[str]:
        return [event["detail"] for event in self.events if event["kind"] == "phase" and event["phase"] == "paused"]


def train_on(disk: Disk, spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.setattr(engine.train.disk_wait, "free_bytes", lambda _: disk.free)
    run = create_run(spec)
    return run, Recipe(build_setup(spec), run, disk).train()


def test_a_run_pauses_before_a_save_that_has_no_room_and_goes_on_by_itself(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = a_spec(tmp_path, llama)
    _, undisturbed = train(spec)
    disk = Disk(100 << 10, lambda disk: setattr(disk, "free", GIB))
    run, ending = train_on(disk, spec, monkeypatch)
    assert ending.outcome == "finished"
    (said,) = disk.pauses()
    assert said.startswith("the checkpoint of step 2 needs ") and "100 KiB free on the disk of runs" in said
    assert said.endswith("free some space, or stop")
    assert losses(disk.events) == losses(undisturbed)
    assert [path.name for path in list_checkpoints(run.checkpoints)] == ["step-000002", "step-000004"]
    assert (run.outputs / "adapter").is_dir()


def test_a_stop_while_paused_ends_the_run_with_what_is_saved(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
):
    def fill_after_first_save(disk: Disk) -> None:
        disk.waiting.append("stop")

    disk = Disk(GIB, fill_after_first_save)
    report = disk.send

    def send(kind: str, **fields: Any) -> None:
        report(kind, **fields)
        if kind == "checkpoint":
            disk.free = 0

    monkeypatch.setattr(disk, "send", send)
    run, ending = train_on(disk, a_spec(tmp_path, llama), monkeypatch)
    assert ending.outcome == "stopped"
    assert ending.why == (
        "while the disk was full: the checkpoint of step 4 was not written; the checkpoint of step 2 remains"
    )
    (newest,) = list_checkpoints(run.checkpoints)
    assert newest.name == "step-000002" and damage(newest) is None
    assert not run.outputs.exists()


def test_a_write_that_is_refused_though_there_seemed_to_be_room_is_tried_again(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
):
    refusals = [2]

    def refuse(original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any) -> Any:
            if refusals[0]:
                refusals[0] -= 1
                raise OSError(errno.EDQUOT, "no more")
            return original(*arguments)

        return write

    monkeypatch.setattr(
        engine.train.checkpoints.writing, "write_tensors", refuse(engine.train.checkpoints.writing.write_tensors)
    )
    disk = Disk(GIB, lambda disk: None)
    run, ending = train_on(disk, a_spec(tmp_path, llama), monkeypatch)
    assert ending.outcome == "finished" and not refusals[0]
    assert len(disk.pauses()) == 2 and "quota" in disk.pauses()[0]
    assert all(damage(path) is None for path in list_checkpoints(run.checkpoints))


def test_no_run_is_made_on_a_disk_that_has_surely_no_room(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine.run.disk_room, "free_bytes", lambda _: 1000)
    with pytest.raises(Problem, match="1000 B free, and this run needs"):
        launch(a_spec(tmp_path, llama))
    assert list_runs() == []


# Within a mount namespace of its own the test may mount what it likes: a real file system that really is full.
_ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=14m small {home}
exec {python} {script} {home} {spec}
"""


def test_a_real_disk_that_fills_up_pauses_the_real_engine_until_there_is_room(
    tmp_path: Path, llama: Path, ledger: Ledger
):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    home = tmp_path / "small"
    home.mkdir()
    rows = write_chats(tmp_path / "rows.jsonl", 24)
    spec = make_spec(llama, rows, train={"max_steps": 60}, checkpoint={"every_steps": 50})
    (tmp_path / "spec.toml").write_text(spec.to_toml())
    script = Path(__file__).with_name("fill_the_disk.py")
    commands = _ON_A_SMALL_DISK.format(home=home, python=sys.executable, script=script, spec=tmp_path / "spec.toml")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", commands], capture_output=True, text=True, check=False, timeout=240
    )
    ledger.injected("a small disk that fills up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "finished with the disk full for a while"
