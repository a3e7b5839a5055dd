"""What counts as changed since a checkpoint: all that decides what is learnt, and nothing that does not."""

from __future__ import annotations

import importlib.metadata
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from accelerate.state import AcceleratorState
from objective_data import write_rows
from training import StoppingChannel, build_setup, make_spec, train, write_chats

from engine.objectives.references import REFERENCES_NAME
from engine.run.checkpoints.manifest import TRAINABLE, list_checkpoints
from engine.run.circumstances import BaseReading, base_circumstances, base_files
from engine.run.circumstances.present import version_circumstances
from engine.run.circumstances.spec_fields import spec_circumstances
from engine.run.endings.exhaustion import BASE_DETAIL
from engine.spec import RunSpec
from engine.train.recipe import Recipe
from engine.train.setup import build


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of this file's own, since its times of change are set."""
    return tiny.make_model(tmp_path_factory.mktemp("model"))


def test_a_library_that_is_replaced_while_a_run_goes_on_is_not_what_it_computes_with(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
):
    setup = build_setup(make_spec(model, write_chats(tmp_path / "rows.jsonl", 8)))
    began_with = importlib.metadata.version("torch")
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "99.0")
    assert setup.circumstances()["torch"] == began_with


@pytest.mark.parametrize(
    ("method", "optimizer", "unused"),
    [
        ("full", "adamw", {"peft", "bitsandbytes"}),
        ("lora", "adamw", {"bitsandbytes"}),
        ("lora", "paged_adamw_8bit", set()),
        ("qlora", "adafactor", set()),
        ("partial", "adamw_8bit", {"peft"}),
    ],
)
def test_a_library_that_a_run_does_not_use_may_be_replaced(method: str, optimizer: str, unused: set[str]):
    spec = make_spec(Path("/m"), Path("/r"), method={"kind": method}, optimizer={"kind": optimizer})
    every = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "finetui"}
    assert version_circumstances(spec).keys() == every - unused


def test_the_order_in_which_rows_come_is_a_circumstance_however_few_of_them_fit_the_memory(tmp_path: Path, model: Path):
    rows = write_chats(tmp_path / "rows.jsonl", 24)

    def spec_of(**train: int) -> RunSpec:
        return make_spec(model, rows, data={"packing": False}, train=train)

    def order(spec: RunSpec, asked: RunSpec) -> str:
        AcceleratorState._reset_state(reset_partial_state=True)
        return build(spec, lambda *told: None, asked=asked).circumstances()["order of the rows"]

    asked = spec_of(micro_batch=2, gradient_accumulation=1)
    usual = order(asked, asked)
    assert usual == order(spec_of(micro_batch=1, gradient_accumulation=2), asked)
    other = spec_of(micro_batch=2, gradient_accumulation=1, seed=1)
    assert usual != order(other, other)


def test_a_chat_template_that_was_moved_is_the_same(tmp_path: Path):
    def said(path: str) -> str:
        spec = make_spec(Path("/m"), Path("/r"), data={"chat_template": path})
        return spec_circumstances(spec)["data.chat_template"]

    assert said("/one/a.jinja") == said("/two/a.jinja") != said("chatml")


def test_the_base_is_asked_for_the_answers_with_as_many_threads_as_before(tmp_path: Path, model: Path):
    """The references of a run were lost, and are made anew: with other threads they would be rounded otherwise."""
    spec = make_spec(
        model,
        write_rows(tmp_path / "rows.jsonl", "pairs", 12),
        objective={"kind": "dpo"},
        train={"max_steps": 3, "micro_batch": 2, "gradient_accumulation": 1},
    )
    torch.set_num_threads(1)
    run, _ = train(spec, stop_after=1)
    (run.evaluation / REFERENCES_NAME).unlink()
    torch.set_num_threads(2)
    threads: list[int] = []

    class Listening(StoppingChannel):
        def send(self, kind: str, **fields: Any) -> None:
            super().send(kind, **fields)
            if fields.get("detail") == BASE_DETAIL:
                threads.append(torch.get_num_threads())

    Recipe(build_setup(spec), run, Listening()).train()
    assert set(threads) == {1}


def test_a_run_none_of_whose_checkpoints_is_whole_says_that_it_begins_anew(tmp_path: Path, model: Path):
    spec = make_spec(model, write_chats(tmp_path / "rows.jsonl", 8), train={"max_steps": 2})
    run, _ = train(spec, stop_after=1)
    (only,) = list_checkpoints(run.checkpoints)
    (only / TRAINABLE).write_bytes(b"half")
    _, events = train(spec, run)
    (told,) = [event["text"] for event in events if event["kind"] == "note" and "begins anew" in event["text"]]
    assert told == "no checkpoint is whole: the run begins anew"


@pytest.mark.parametrize("age_seconds", [60, -86400])
def test_weights_that_were_not_touched_are_read_once(model: Path, monkeypatch: pytest.MonkeyPatch, age_seconds: float):
    """Whatever their time says: archives keep that of another clock."""
    written_at = time.time() - age_seconds
    os.utime(model / "model.safetensors", (written_at, written_at))
    time.sleep(max(0.0, 2.1 - (time.time() - (model / "model.safetensors").stat().st_ctime)))
    read: list[int] = []
    first = base_circumstances(model, read.append)
    assert sum(read) >= (model / "model.safetensors").stat().st_size
    monkeypatch.setattr("hashlib.sha256", None)
    assert base_circumstances(model) == first


def test_a_stop_ends_the_wait_for_the_weights_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    answers = threading.Event()
    monkeypatch.setattr(base_files, "_contents", lambda path, read: str(answers.wait()))  # a disk that does not answer
    (tmp_path / "model.safetensors").touch()

    class Stopped(Exception):
        pass

    def report(done: int, total: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        BaseReading(tmp_path).result(report)
    answers.set()  # so that its thread ends
