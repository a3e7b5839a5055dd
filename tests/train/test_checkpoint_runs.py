"""Checkpoints of real runs: a stop in the midst of a step, a best one that was damaged, a save that was not needed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from objective_data import write_rows
from safetensors.torch import load_file
from training import build_setup, losses, make_spec, train, write_chats

import engine.train.checkpoints.writing
import engine.train.step_under_way
from engine.run.checkpoints.manifest import TRAINABLE, checkpoint_path, list_checkpoints
from engine.run.creating import create_run
from engine.run.directory import RunDirectory
from engine.run.processes.channel import MemoryChannel
from engine.spec import RunSpec
from engine.train.recipe import Recipe

STEPS, MICRO_BATCHES = 4, 4


def a_spec(folder: Path, model: Path, kind: str = "next_token", **sections: dict[str, Any]) -> RunSpec:
    chats = kind == "next_token"
    rows = write_chats(folder / "rows.jsonl", 48) if chats else write_rows(folder / "rows.jsonl", "similar", 48)
    sections = {
        "method": {"dropout": 0.2},
        "objective": {"kind": kind},
        "train": {"max_steps": STEPS, "micro_batch": 2, "gradient_accumulation": MICRO_BATCHES},
        **sections,
    }
    return make_spec(model, rows, data={"packing": chats}, **sections)


class StopsWithinAStep(MemoryChannel):
    """Asks to stop before the third micro-batch of the step that follows the second."""

    def __init__(self) -> None:
        super().__init__()
        self._looks = 0

    def commands(self) -> list[str]:
        self._looks += any(event["kind"] == "step" and event["step"] == 2 for event in self.events)
        return ["stop"] if self._looks == 4 else []  # the first look is between the two steps


def _learnt(run: RunDirectory, step: int) -> dict[str, torch.Tensor]:
    return load_file(checkpoint_path(run.checkpoints, step) / TRAINABLE)


def _notes(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["kind"] == "note"]


@pytest.mark.parametrize(
    ("kind", "patience_seconds", "stopped_at"),
    [("next_token", 0.0, 2), ("embedding", 0.0, 2), ("next_token", 1e9, 3)],
)
def test_a_stop_within_a_step_ends_it_or_undoes_it_and_the_resume_is_exact(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, kind: str, patience_seconds: float, stopped_at: int
):
    monkeypatch.setattr(engine.train.step_under_way, "PATIENCE_SECONDS", patience_seconds)
    spec = a_spec(tmp_path, llama, kind)
    left_alone, expected = train(spec)
    run, channel = create_run(spec), StopsWithinAStep()
    assert Recipe(build_setup(spec), run, channel).train().outcome == "stopped"
    assert [path.name for path in list_checkpoints(run.checkpoints)] == [f"step-{stopped_at:06d}"]
    dropped = [note for note in _notes(channel.events) if "2 of a step's 4 micro-batches done" in note]
    assert len(dropped) == (stopped_at == 2)
    _, events = train(spec, run)
    assert losses(channel.events) + losses(events) == losses(expected)
    ends = [_learnt(each, STEPS) for each in (run, left_alone)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_a_best_checkpoint_that_was_damaged_is_not_handed_over_and_that_is_said(tmp_path: Path, llama: Path):
    sections = {"checkpoint": {"every_steps": 1}, "evaluation": {"every_steps": 1}, "optimizer": {"learning_rate": 0.5}}
    spec = a_spec(tmp_path, llama, **sections)
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"held_out_share": 0.1})})
    run = create_run(spec)

    class Damaging(MemoryChannel):
        """Flips a bit of the best checkpoint once the last one is there."""

        def send(self, told: str, **fields: Any) -> None:
            super().send(told, **fields)
            if told == "checkpoint" and fields["step"] == STEPS:
                best = max(event["step"] for event in self.events if event["kind"] == "checkpoint" and event["best"])
                assert best < STEPS
                file = checkpoint_path(run.checkpoints, best) / TRAINABLE
                content = bytearray(file.read_bytes())
                content[-1] ^= 1
                file.write_bytes(content)

    channel = Damaging()
    assert Recipe(build_setup(spec), run, channel).train().outcome == "finished"
    (said,) = [note for note in _notes(channel.events) if "best checkpoint" in note]
    assert "trainable.safetensors is not the file that was saved" in said
    assert f"the weights of step {STEPS} are handed over instead" in said
    handed_over = load_file(run.outputs / "adapter" / "adapter_model.safetensors")
    last = {name.replace(".default", ""): tensor for name, tensor in _learnt(run, STEPS).items()}
    assert handed_over.keys() == last.keys()
    assert all(torch.equal(tensor, last[name]) for name, tensor in handed_over.items())
    assert channel.events[-1]["step"] == STEPS  # the evaluation "after" is of what was handed over


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EIO, "the disk reported an error; training goes on. Look into the system's log"),
        (
            errno.EFBIG,
            "a file would be larger than this process or this disk allows; training goes on. Raise the limit",
        ),
        (errno.EROFS, "the disk is read-only; training goes on. A disk that was writable becomes so after errors"),
    ],
)
def test_a_save_on_the_way_that_fails_is_told_and_training_goes_on(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
):
    write_tensors = engine.train.checkpoints.writing.write_tensors

    def refuse_step_2(path: Path, tensors: dict[str, torch.Tensor]) -> Any:
        if ".staging-000002." in str(path):
            raise OSError(number, "refused", str(path))
        return write_tensors(path, tensors)

    monkeypatch.setattr(engine.train.checkpoints.writing, "write_tensors", refuse_step_2)
    run, events = train(a_spec(tmp_path, llama, checkpoint={"every_steps": 1}))
    (note,) = [note for note in _notes(events) if "was not saved" in note]
    assert note.startswith(f"the checkpoint of step 2 was not saved: {said}")
    assert [event["step"] for event in events if event["kind"] == "checkpoint"] == [1, 3, 4]
    assert {path.name for path in run.checkpoints.iterdir()} == {"step-000003", "step-000004"}
