"""Runs whose worker runs out of memory: restarted a rung further down, or ended with what was tried."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import end_of, events_of, wait_until

from engine.run.creating import create_run
from engine.run.directory import RunDirectory
from engine.run.endings.descent import Shortage, go_down
from engine.run.endings.exhaustion import KillCounter, shortage
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.recorded import recorded_processes
from engine.run.summary import summarise
from engine.run.telemetry.events import Event
from engine.run.telemetry.folding import Folding
from engine.run.telemetry.reading import read_state
from engine.run.telemetry.recording import Recording
from engine.run.telemetry.snapshot import load_snapshot, save_snapshot
from engine.spec import RunSpec, parse_spec
from profiles.hardware import HostFiles
from profiles.problem import Problem

Script = Callable[..., None]


@pytest.fixture
def spec(home: Path) -> RunSpec:
    values = {"name": "notes", "model": {"path": "/models/base"}, "data": {"train": ["/data/train.jsonl"]}}
    values["train"] = {"micro_batch": 4, "gradient_accumulation": 2}
    return parse_spec(values, "the test's spec")


def wait_for_end(run: RunDirectory) -> None:
    wait_until(lambda: liveness(run) != "live")


def of_kind(run: RunDirectory, kind: str) -> list[dict]:
    return [event for event in events_of(run) if event["kind"] == kind]


def test_a_run_goes_down_the_ladder_from_its_last_checkpoint_and_stays_there_when_resumed(
    spec: RunSpec, script: Script
):
    script(["save_at", 7], ["need", "step", "train.micro_batch", 1], ["train", 100_000, 0.01])
    run = launch(spec)
    wait_until(lambda: read_state(run).step > 10)
    assert [event["changes"] for event in of_kind(run, "ladder")] == [
        {"train.micro_batch": [4, 2], "train.gradient_accumulation": [2, 4]},
        {"train.micro_batch": [2, 1], "train.gradient_accumulation": [4, 8]},
    ]
    adjusted = {"train.micro_batch": 1, "train.gradient_accumulation": 8}
    attempts = of_kind(run, "attempt")
    assert [(each["number"], each["resumed_from"]) for each in attempts] == [(1, None), (2, 7), (3, 7)]
    assert [each["adjusted"] for each in attempts][::2] == [{}, adjusted]
    state = read_state(run)
    assert state.adjusted == adjusted
    assert [rung["number"] for rung in state.ladder] == [1, 2]
    assert (
        "memory ran out in a training step; it goes on from step 7 with fewer rows at once, the same rows in a step: "
        "train.micro_batch 4 -> 2, train.gradient_accumulation 2 -> 4" in state.notes
    )
    assert run.spec() == spec
    stop(run)
    wait_for_end(run)
    resume(run)
    wait_until(lambda: len(of_kind(run, "attempt")) == 4)
    assert of_kind(run, "attempt")[-1]["adjusted"] == adjusted
    stop(run)
    wait_for_end(run)

    # What is kept of a long journal has it, too.
    save_snapshot(run, read_state(run), deque_of_nothing(), run.events_path.stat().st_size)
    kept = load_snapshot(run)
    assert kept is not None and (kept[0].ladder, kept[0].adjusted) == (state.ladder, adjusted)


def deque_of_nothing():
    from collections import deque

    return deque()


@pytest.mark.parametrize("where", ["step", "evaluation", "saving"])
def test_the_ladder_ends_and_says_what_was_tried(unsealed: RunSpec, script: Script, where: str):
    script(["need", where, "train.micro_batch", 0])
    run = launch(unsealed)
    end = end_of(run)
    wait_for_end(run)
    rungs, attempts = of_kind(run, "ladder"), of_kind(run, "attempt")
    assert len(attempts) == len(rungs) + 1 <= 16
    assert [rung["where"] for rung in rungs] == [where] * len(rungs)
    state = read_state(run)
    assert end["outcome"] == summarise(run).state == "failed"
    assert state.problem is not None and state.problem["where"] == "GPU memory"
    for field, value in state.adjusted.items():
        assert f"{field} {value}" in state.problem["what"]
    assert "micro_batch 1" in end["why"] and "paged_adamw_8bit" in end["why"] and "qlora" in state.problem["fix"]


def test_native_code_that_dies_of_memory_is_known_by_its_last_words(spec: RunSpec, script: Script):
    script(
        ["send", "phase", {"phase": "evaluating", "detail": "held-out loss before training"}],
        ["crash_unless", "evaluation.batch_tokens", "terminate called: std::bad_alloc", 6],
        ["train", 1, 0],
    )
    run = launch(spec)
    assert end_of(run)["outcome"] == "finished"
    (rung,) = of_kind(run, "ladder")
    assert (rung["where"], rung["what"]) == ("evaluation", "terminate called: std::bad_alloc")


def test_a_worker_that_was_killed_is_not_taken_for_one_that_ran_out_of_memory(spec: RunSpec, script: Script):
    script(["crash_unless", "train.micro_batch", "working", 9], ["train", 1, 0])
    run = launch(spec)
    assert end_of(run)["cause"] == "worker_killed"
    assert not of_kind(run, "ladder") and len(of_kind(run, "restart")) == 1


def test_a_stop_that_meets_the_want_of_memory_ends_the_run_and_the_resume_takes_less(spec: RunSpec, script: Script):
    script(["save_at", 7], ["await_stop"], ["need", "step", "train.micro_batch", 2])
    run = launch(spec)
    wait_until(lambda: of_kind(run, "checkpoint"))
    stop(run)
    end = end_of(run)
    wait_for_end(run)
    assert end["outcome"] == "stopped" and "the checkpoint of step 7 remains" in end["why"]
    script(["need", "step", "train.micro_batch", 2], ["train", 8, 0])
    resume(run)
    wait_until(lambda: read_state(run).outcome == "finished")
    assert len(of_kind(run, "attempt")) == 2


@pytest.mark.parametrize("way", ["command", "signal"])
def test_a_stop_while_a_worker_dies_of_memory_is_not_lost(spec: RunSpec, script: Script, tmp_path: Path, way: str):
    gone = tmp_path / "gone"
    script(["need_unheard", "step", str(gone)])
    run = launch(spec)
    wait_until(lambda: "deaf" in read_state(run).notes)
    if way == "command":
        stop(run)
    else:
        recorded_processes(run)["supervisor"].send(signal.SIGTERM)
    wait_until(lambda: read_state(run).stop_requested)
    gone.touch()
    assert end_of(run)["outcome"] == "stopped"
    wait_for_end(run)
    assert len(of_kind(run, "attempt")) == 1


def test_a_rung_that_a_full_disk_does_not_take_is_gone_down_all_the_same(home: Path, spec: RunSpec):
    run = create_run(spec)
    recording = Recording(run, Folding())
    room = [True]
    append = recording._journal.append

    def append_if_there_is_room(kind: str, **fields: Any) -> Event:
        if not room[0]:
            raise OSError(28, "No space left on device")
        return append(kind, **fields)

    recording._journal.append = append_if_there_is_room  # type: ignore[method-assign]
    recording.add("attempt", number=1, resumed_from=None, worker_pid=1, adjusted={})
    room[0] = False
    values = []
    while True:
        try:
            rung = go_down(spec, recording.state(), Shortage("step", "CUDA out of memory", "cuda"), None)
        except Problem as problem:
            values.append(problem.what)
            break
        recording.add("ladder", **rung)
        values.append(recording.state().adjusted["train.micro_batch"])
        assert len(values) < 20
    assert values[:2] == [2, 1] and "train.micro_batch 1" in values[-1]
    assert not run.ballast_path.exists()
    room[0] = True
    recording.add("attempt", number=2, resumed_from=None, worker_pid=1, adjusted=dict(recording.state().adjusted))
    assert "records before this one could not be written" in read_state(run).notes[-1]
    assert read_state(run).adjusted == recording.state().adjusted
    assert run.ballast_path.stat().st_size
    recording.close()


@pytest.mark.parametrize("version", [1, 2])
def test_the_kernels_kills_are_counted_within_the_group_of_the_run(tmp_path: Path, version: int):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    line = "0::/user/job" if version == 2 else "4:cpu,memory:/user/job"
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"1:name=systemd:/\n{line}\n")
    # The innermost group is one that only the host sees, as in a container.
    group = tmp_path / "cgroup" / ("" if version == 2 else "memory") / "user"
    group.mkdir(parents=True)
    counts = group / ("memory.events" if version == 2 else "memory.oom_control")
    counts.write_text("oom_kill_disable 0\noom 3\noom_kill 3\n")
    counter = KillCounter(HostFiles(tmp_path / "proc", tmp_path / "cgroup"))
    assert not counter.rose()
    counts.write_text("oom 4\noom_kill 4\noom_group_kill 9\n")
    assert counter.rose() and not counter.rose()
    assert not KillCounter(HostFiles(tmp_path / "no", tmp_path / "such")).rose()


SAID = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to ..."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("Error out of memory at line 380 in file /src/csrc/ops.cu"),
    RuntimeError("cudaErrorMemoryAllocation"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", SAID, ids=lambda error: str(error)[:40])
def test_want_of_memory_is_known_by_its_words_also_behind_a_problem(error: Exception):
    assert shortage(error)
    try:
        try:
            raise error
        except Exception as inner:
            raise Problem("model", "cannot be loaded", "") from inner
    except Problem as problem:
        assert shortage(problem) == shortage(error)


def test_other_faults_are_not_taken_for_want_of_memory():
    for error in (
        RuntimeError("shapes do not match"),
        OSError(28, "No space left on device"),
        KeyError("memory"),
        Problem("train.jsonl:3", 'is no JSON: "CUDA out of memory"', ""),
    ):
        assert shortage(error) is None
