"""Runs that wait for memory: detached, in the order they came, each started once its memory is free."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import supervise
from waiting import end_of, events_of, wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "profiles"))
from model_folder import LLAMA, make_model

import engine.run.launch
from engine.propose import budget_bytes
from engine.run.control import ask
from engine.run.directory import RunDirectory, list_runs, runs_root
from engine.run.launch import launch, liveness, resume, stop
from engine.run.processes.recorded import recorded_processes
from engine.run.summary import summarise
from engine.run.telemetry.folding import read_state
from engine.run.waiting.room import estimate_for, room_for
from engine.spec import RunSpec, parse_spec
from profiles.hardware import Ram, probe
from profiles.problem import Problem

Script = Callable[..., None]

LONG = ("train", 100_000, 0.01)


class Memory:
    """The free RAM that the engines started here see."""

    def __init__(self, path: Path):
        self._path = path

    def set_free(self, size: float) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text(str(int(size)))
        temporary.rename(self._path)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    monkeypatch.setenv("FREE_FILE", str(tmp_path / "free"))
    command = [sys.executable, supervise.__file__]
    monkeypatch.setattr(engine.run.launch, "module_command", lambda _, *arguments: [*command, *arguments])
    memory = Memory(tmp_path / "free")
    memory.set_free(0)
    return memory


@pytest.fixture
def spec(home: Path, tmp_path: Path) -> RunSpec:
    model = make_model(tmp_path / "model", LLAMA)
    return parse_spec(
        {"name": "notes", "model": {"path": str(model)}, "data": {"train": ["/data/train.jsonl"]}}, "test"
    )


def wait_for_end(run: RunDirectory) -> None:
    wait_until(lambda: liveness(run) != "live")


def is_queued(run: RunDirectory) -> bool:
    return summarise(run).state == "queued"


def enough_for_one(spec: RunSpec) -> int:
    """The free RAM from which on a run of `spec` may start, to 16 MiB."""
    machine = probe(runs_root())
    for free in range(0, supervise.TOTAL_BYTES, 16 << 20):
        hardware = dataclasses.replace(machine, ram=Ram(supervise.TOTAL_BYTES, free), gpus=())
        if budget_bytes(hardware, estimate_for(spec, hardware)) >= room_for(spec, hardware).needed_bytes:
            return free
    raise AssertionError("it never fits")


def is_training(run: RunDirectory) -> bool:
    return liveness(run) == "live" and read_state(run).step > 0


def test_runs_wait_for_memory_and_start_by_themselves_the_oldest_first(spec: RunSpec, script: Script, memory: Memory):
    script(LONG)
    needed = room_for(spec).needed_bytes
    first = launch(spec, wait=True)
    wait_until(lambda: is_queued(first))
    second = launch(spec, wait=True)
    wait_until(lambda: is_queued(second) and read_state(second).queued["ahead"] == 1)

    summary, state = summarise(first), read_state(first)
    assert (state.phase, state.attempts, state.worker_pid) == ("queued", 0, None)
    assert (state.queued["needed_bytes"], state.queued["free_bytes"], state.queued["ahead"]) == (needed, 0, 0)
    assert state.queued["device"] == "RAM"
    assert "of RAM, 0 B are free" in summary.why
    assert ask(first, "status")["worker_pid"] is None
    with pytest.raises(Problem, match="waits for memory"):
        ask(first, "save")

    # Enough for one: the first takes it, and what it was promised is not free for the second.
    memory.set_free(enough_for_one(spec) + needed // 2)
    wait_until(lambda: is_training(first))
    wait_until(lambda: read_state(second).queued.get("ahead") == 0)
    assert is_queued(second) and summarise(first).state == "running"
    assert read_state(second).queued["usable_bytes"] < needed

    stop(first)
    wait_for_end(first)
    wait_until(lambda: is_training(second))
    assert read_state(second).queued == {}
    stop(second)
    assert end_of(second)["outcome"] == "stopped"
    wait_for_end(second)
    assert not second.claim_path.exists() and not second.ballast_path.exists()


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_run_that_waits_can_be_stopped_and_resumed(spec: RunSpec, script: Script, memory: Memory, way: str):
    script(["train", 3, 0])
    run = launch(spec, wait=True)
    wait_until(lambda: is_queued(run))
    (stop if way == "stop" else lambda run: ask(run, "kill"))(run)
    end = end_of(run)
    wait_for_end(run)
    assert (end["outcome"], end["why"]) == ("stopped", "stopped while it waited for memory; nothing was started")
    assert summarise(run).state == "stopped"

    resume(run, wait=True)
    wait_until(lambda: is_queued(run))
    with pytest.raises(Problem, match="is running already"):
        resume(run)
    memory.set_free(1 << 35)
    wait_until(lambda: read_state(run).outcome == "finished")
    assert read_state(run).attempts == 1


def test_one_that_waits_starts_when_a_live_one_ends_and_goes_down_where_memory_was_taken_again(
    spec: RunSpec, script: Script, memory: Memory
):
    needed, free = room_for(spec).needed_bytes, enough_for_one(spec)
    memory.set_free(free)
    script(["send", "plan", {"device": "cpu", "predicted_peak_bytes": needed}], LONG)
    live = launch(spec)  # it does not wait; what it is going to take is not free for the others
    wait_until(lambda: is_training(live) and live.claim_path.exists())
    script(["need", "step", "train.gradient_accumulation", 4], ["train", 3, 0])
    fewer = spec.model_copy(update={"train": spec.train.model_copy(update={"micro_batch": 4})})
    second = launch(fewer, wait=True)
    wait_until(lambda: is_queued(second) and read_state(second).queued)
    assert read_state(second).queued["usable_bytes"] < needed
    memory.set_free(1 << 35)
    assert end_of(second)["outcome"] == "finished"
    assert [rung["where"] for rung in read_state(second).ladder] == ["step", "step"]
    stop(live)
    wait_for_end(live)


def test_a_run_that_went_down_the_ladder_waits_for_what_it_takes_now(
    spec: RunSpec, script: Script, memory: Memory, monkeypatch: pytest.MonkeyPatch
):
    script(["need", "loading", "train.micro_batch", 1], LONG)
    wide = spec.model_copy(update={"train": spec.train.model_copy(update={"micro_batch": 1 << 12})})
    run = launch(wide)
    wait_until(lambda: read_state(run).ladder and is_training(run))
    stop(run)
    wait_for_end(run)
    needed = room_for(wide).needed_bytes
    small = dataclasses.replace(probe(runs_root()), ram=Ram(needed, 0), gpus=())
    monkeypatch.setattr(engine.run.launch, "room_for", lambda spec: room_for(spec, small))
    with pytest.raises(Problem, match="kept in reserve"):
        launch(wide, wait=True)
    resume(run, wait=True)
    wait_until(lambda: is_queued(run) and read_state(run).queued)
    assert read_state(run).queued["needed_bytes"] < needed / 10
    stop(run)
    wait_for_end(run)


def test_one_that_waits_when_its_engine_is_killed_holds_nobody_up(spec: RunSpec, script: Script, memory: Memory):
    script(["train", 3, 0])
    first, second = launch(spec, wait=True), launch(spec, wait=True)
    wait_until(lambda: is_queued(first) and is_queued(second))
    recorded_processes(first)["supervisor"].send(9)
    wait_for_end(first)
    memory.set_free(1 << 35)
    assert end_of(second)["outcome"] == "finished"
    assert (summarise(first).state, read_state(first).attempts) == ("failed", 0)


def test_where_memory_is_free_nobody_waits(spec: RunSpec, script: Script, memory: Memory):
    memory.set_free(1 << 35)
    script(["train", 3, 0])
    run = launch(spec, wait=True)
    assert end_of(run)["outcome"] == "finished"
    assert not [event for event in events_of(run) if event["kind"] == "queued"]


def test_a_run_that_could_never_start_is_not_put_in_the_queue(spec: RunSpec, script: Script, tmp_path: Path):
    huge = spec.model_copy(update={"train": spec.train.model_copy(update={"micro_batch": 10**7})})
    with pytest.raises(Problem, match="RAM has"):
        launch(huge, wait=True)
    assert list_runs() == []


def test_a_run_that_fits_only_without_any_reserve_is_not_put_in_the_queue(spec: RunSpec, home: Path):
    machine = probe(runs_root())
    needed = room_for(spec).needed_bytes
    for total, possible in ((needed + (256 << 20), False), (needed * 2 + (1 << 30), True)):
        hardware = dataclasses.replace(machine, ram=Ram(total, 0), gpus=())
        room = room_for(spec, hardware)
        assert room.possible == possible
        idle = room_for(spec, dataclasses.replace(hardware, ram=Ram(total, total)))
        assert idle.fits == possible


def test_what_a_person_is_told_before_a_start_names_who_holds_the_memory(spec: RunSpec, home: Path):
    room = room_for(spec)
    assert room.possible and room.free_bytes <= room.total_bytes
    assert room.fits == (room.needed_bytes <= room.usable_bytes)
    for holder in room.holders:
        assert str(holder.pid) in room.sentence() and holder.bytes
