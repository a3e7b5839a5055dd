"""A run that runs out of memory goes on with less, and learns the same: real training, real limits."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import shortages
import tiny
import torch
from accelerate.state import AcceleratorState
from memory_group import starting_in_a_group_of
from training import losses, make_spec, train, write_chats
from waiting import wait_until

from engine.run.checkpoints.manifest import list_checkpoints
from engine.run.creating import create_run
from engine.run.directory import RunDirectory
from engine.run.endings.descent import Shortage, go_down
from engine.run.endings.exhaustion import shortage, where_it_ran_out
from engine.run.launch import launch
from engine.run.liveness import liveness
from engine.run.processes.channel import MemoryChannel
from engine.run.processes.worker_process import COMMAND_VARIABLE
from engine.run.telemetry.events import Event
from engine.run.telemetry.folding import fold
from engine.run.telemetry.journal import JournalTail
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from engine.train import worker

# A bound for waiting, not a measurement: a loaded machine takes tens of seconds to import the training libraries.
PATIENCE_SECONDS = 240


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)


def a_spec(tmp_path: Path, model: Path, **sections: dict[str, Any]) -> RunSpec:
    chats = write_chats(tmp_path / "chats.jsonl", 60)
    held_out = write_chats(tmp_path / "held-out.jsonl", 9, seed=9)
    sections = {
        "data": {"packing": False},
        "train": {"max_steps": 6, "micro_batch": 6, "gradient_accumulation": 2, "probe": False},
        "evaluation": {"every_steps": 2, "answers": 9, "max_new_tokens": 4},
        "checkpoint": {"every_steps": 2},
        **sections,
    }
    return make_spec(model, chats, held_out, **sections)


def attempts_until_the_end(run: RunDirectory, most: int = 12) -> list[Event]:
    """What the worker tells, attempt after attempt in this process, with the ladder between them as the supervisor
    goes down it."""
    events: list[Event] = []

    def tell(kind: str, **fields: Any) -> None:
        events.append({"v": 1, "seq": len(events) + 1, "at": 0.0, "kind": kind, **fields})

    for number in range(1, most):
        channel, adjusted = MemoryChannel(), dict(fold(events).adjusted)
        saved = list_checkpoints(run.checkpoints)
        step = int(saved[-1].name.removeprefix("step-")) if saved else None
        tell("attempt", number=number, resumed_from=step, worker_pid=1, adjusted=adjusted)
        AcceleratorState._reset_state(reset_partial_state=True)
        try:
            worker._Attempt(run, channel, adjusted).train()  # type: ignore[arg-type]
        except Exception as error:
            said = shortage(error)
            assert said is not None and (said in shortages.SAID or said in shortages.CPU_SAID), repr(error)
            where = where_it_ran_out(error)
        else:
            where = None
        for event in channel.events:
            tell(**event)
        if where is None:
            return events
        saved = list_checkpoints(run.checkpoints)
        step = int(saved[-1].name.removeprefix("step-")) if saved else None
        tell("ladder", **go_down(run.spec(), fold(events), Shortage(where, shortages.SAID), step))
    raise AssertionError(f"not at its end after {most} attempts")


def rungs(events: list[Event]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (event["where"], {field: new for field, (_, new) in event["changes"].items()})
        for event in events
        if event["kind"] == "ladder"
    ]


STEP_RUNGS = [
    ("step", {"train.micro_batch": 3, "train.gradient_accumulation": 4}),
    ("step", {"train.micro_batch": 2, "train.gradient_accumulation": 6}),
]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_losses_after_a_rung_are_those_of_a_run_with_memory_enough(tmp_path: Path, llama: Path, method: str):
    spec = a_spec(tmp_path, llama, method={"kind": method})
    _, undisturbed = train(spec)
    with shortages.run_short("step", rows=2, after=7):  # in the fourth step, two of which were saved
        events = attempts_until_the_end(create_run(spec))
    assert rungs(events) == STEP_RUNGS
    by_step = {event["step"]: event["loss"] for event in events if event["kind"] == "step"}
    assert [by_step[step] for step in sorted(by_step)] == pytest.approx(losses(undisturbed), rel=1e-4)
    measured = [event["held_out_loss"] for event in events if event["kind"] == "evaluation"]
    assert measured[-1] == pytest.approx(undisturbed_last(undisturbed), rel=1e-4)
    assert [event["resumed_from"] for event in events if event["kind"] == "attempt"] == [None, 2, 2]


def undisturbed_last(events: list[Event]) -> float:
    return [event["held_out_loss"] for event in events if event["kind"] == "evaluation"][-1]


def test_packed_rows_go_on_the_same_too(tmp_path: Path, llama: Path):
    spec = a_spec(tmp_path, llama, data={"packing": True}, train={"max_steps": 4, "micro_batch": 2, "probe": False})
    _, undisturbed = train(spec)
    with shortages.run_short("packed", rows=128, after=2):
        events = attempts_until_the_end(create_run(spec))
    assert rungs(events)[0] == ("step", {"train.micro_batch": 1, "train.gradient_accumulation": 2})
    by_step = {event["step"]: event["loss"] for event in events if event["kind"] == "step"}
    assert [by_step[step] for step in sorted(by_step)] == pytest.approx(losses(undisturbed), rel=1e-4)


LEANEST = ("loading", {"train.micro_batch": 1, "train.gradient_accumulation": 12})
EXPECTED = {
    "loading": [LEANEST],
    "layout": [LEANEST],
    "probe": [("step", {"train.micro_batch": 3, "train.gradient_accumulation": 4})],
    "evaluation": [("evaluation", {"evaluation.batch_tokens": 192}), ("evaluation", {"evaluation.batch_tokens": 1})],
    "answers": [("answers", {"evaluation.answer_batch": 8}), ("answers", {"evaluation.answer_batch": 2})],
    "saving": [("saving", {"train.micro_batch": 3, "train.gradient_accumulation": 4})],
    "handing over": [("saving", {"train.micro_batch": 3, "train.gradient_accumulation": 4})],
}


@pytest.mark.parametrize("place", EXPECTED)
def test_wherever_memory_runs_out_the_run_finishes_with_less_there(tmp_path: Path, llama: Path, place: str):
    spec = a_spec(tmp_path, llama, train={"max_steps": 2, "micro_batch": 6, "gradient_accumulation": 2})
    run = create_run(spec)
    with shortages.run_short(place, rows=2):
        events = attempts_until_the_end(run)
    assert [where for where, _ in rungs(events)] == [where for where, _ in EXPECTED[place]]
    for (_, changed), (_, expected) in zip(rungs(events), EXPECTED[place], strict=True):
        assert changed.items() >= expected.items()
    assert events[-1]["kind"] == "outcome" and events[-1]["outcome"] == "finished"
    after = [event for event in events if event["kind"] == "evaluation" and event["when"] == "after"]
    assert after[0]["answers"] == 9 and after[0]["held_out_loss"]
    assert {event["attention"] for event in events if event["kind"] == "plan"} == {"per-document"}
    assert [path.name for path in run.outputs.iterdir()] == ["adapter"]


def test_answers_that_never_fit_are_left_out_at_last(tmp_path: Path, llama: Path):
    spec = a_spec(tmp_path, llama, train={"max_steps": 1, "micro_batch": 6, "probe": False})
    with shortages.run_short("answers", after=1):  # those of the base come first, and fit
        events = attempts_until_the_end(create_run(spec))
    assert rungs(events)[-1] == ("answers", {"evaluation.answers": 0})
    assert {where for where, _ in rungs(events)} == {"answers"}
    assert events[-1]["outcome"] == "finished"
    assert [event["answers"] for event in events if event["kind"] == "evaluation"] == [9, 0, 0]
    assert [event["step"] for event in events if event["kind"] == "step"] == [1]


def test_a_checkpoint_that_is_too_much_to_read_back_is_read_in_less(tmp_path: Path, llama: Path):
    spec = a_spec(tmp_path, llama, train={"max_steps": 4, "micro_batch": 6, "probe": False})
    _, undisturbed = train(spec)
    with shortages.run_short("step", rows=3, after=2), shortages.run_short("restoring", cpu=True):
        events = attempts_until_the_end(create_run(spec))
    assert [where for where, _ in rungs(events)] == ["step", "loading"]
    assert rungs(events)[1][1].items() >= {"train.micro_batch": 1, "train.gradient_accumulation": 6}.items()
    by_step = {event["step"]: event["loss"] for event in events if event["kind"] == "step"}
    assert [by_step[step] for step in sorted(by_step)] == pytest.approx(losses(undisturbed), rel=1e-4)


def run_to_its_end(spec: RunSpec, monkeypatch: pytest.MonkeyPatch, **condition: Any) -> RunDirectory:
    command = [sys.executable, shortages.__file__, json.dumps(condition)]
    monkeypatch.setenv(COMMAND_VARIABLE, shlex.join(command))
    run = launch(spec)
    wait_for_end(run)
    return run


def wait_for_end(run: RunDirectory) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while liveness(run) == "live":
        assert time.monotonic() < deadline, run.log_path.read_text()[-3000:]
        time.sleep(0.1)


def test_cudas_error_in_a_real_worker_takes_the_real_supervisor_a_rung_down(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = a_spec(tmp_path, llama, evaluation={"every_steps": 0, "answers": 0})
    run = run_to_its_end(spec, monkeypatch, place="step", rows=3, after=7)
    state = read_state(run)
    assert state.outcome == "finished", run.log_path.read_text()[-3000:]
    events = JournalTail(run.events_path).read(1 << 30)
    assert rungs(events) == STEP_RUNGS[:1]
    assert [event["resumed_from"] for event in events if event["kind"] == "attempt"] == [None, 2]
    assert state.ladder[0]["what"].startswith("CUDA out of memory")
    assert "OutOfMemoryError" in run.log_path.read_text()  # with its traceback, for whoever wants it


def a_wide_step(tmp_path: Path) -> RunSpec:
    """16 rows of 512 tokens, which take some 900 MB; half of them take half of that."""
    wide = tiny.make_model(tmp_path / "wide", hidden=256, layers=4)
    rows = write_chats(tmp_path / "long.jsonl", 40, longest=1200)
    data = {"sequence_length": 512, "train_on": "everything"}
    return make_spec(wide, rows, data=data, train={"max_steps": 2, "micro_batch": 16, "probe": False})


def expect_finished_with_fewer_rows(run: RunDirectory) -> None:
    state = read_state(run)
    assert state.outcome == "finished", run.log_path.read_text()[-3000:]
    assert state.ladder and {rung["where"] for rung in state.ladder} == {"step"}
    assert state.step == 2
    micro_batch, accumulation = (state.adjusted[f"train.{name}"] for name in ("micro_batch", "gradient_accumulation"))
    assert micro_batch < 16 and micro_batch * accumulation == 16


@pytest.mark.slow
def test_a_worker_at_the_limit_of_its_address_space_goes_on_in_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = run_to_its_end(a_wide_step(tmp_path), monkeypatch, address_space_mib=500)
    expect_finished_with_fewer_rows(run)
    assert "DefaultCPUAllocator" in read_state(run).ladder[0]["what"]


@pytest.mark.slow
def test_a_worker_that_the_kernel_kills_for_memory_goes_on_in_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = a_wide_step(tmp_path)
    monkeypatch.setenv(COMMAND_VARIABLE, "")
    with starting_in_a_group_of(750 * shortages.MIB) as group:
        run = launch(spec)
    try:
        wait_for_end(run)
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text())  # what read the devices ends a moment later
        group.rmdir()
    expect_finished_with_fewer_rows(run)
    assert read_state(run).ladder[0]["what"] == "the kernel ended the trainer"
