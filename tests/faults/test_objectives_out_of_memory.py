"""Objectives besides next_token go down the ladder too, and learn the same with less."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import shortages
import torch
from objective_data import write_rows
from test_out_of_memory import attempts_until_the_end, rungs
from training import losses, make_spec, train

from engine.objectives.embedding import Embedding
from engine.objectives.sequences import SequenceObjective
from engine.run.creating import create_run
from engine.run.endings.exhaustion import where_by_phase
from engine.spec import RunSpec


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    torch.set_num_threads(2)


def a_spec(tmp_path: Path, model: Path, objective: str, kind: str, **train_values: int | bool) -> RunSpec:
    rows = write_rows(tmp_path / "rows.jsonl", kind, 60)
    return make_spec(
        model,
        rows,
        data={"held_out_share": 0.2, "packing": False},
        objective={"kind": objective},
        train={"max_steps": 4, "micro_batch": 4, "probe": False, **train_values},
        checkpoint={"every_steps": 2},
    )


@pytest.mark.parametrize(("objective", "kind"), [("dpo", "pairs"), ("kto", "thumbs"), ("embedding", "similar")])
def test_the_losses_after_a_rung_are_those_of_a_run_with_memory_enough(
    tmp_path: Path, llama: Path, objective: str, kind: str
) -> None:
    spec = a_spec(tmp_path, llama, objective, kind)
    _, undisturbed = train(spec)
    owner = Embedding if objective == "embedding" else SequenceObjective
    name = "_vectors" if objective == "embedding" else "log_probabilities"
    original, calls = getattr(owner, name), 0

    def short(self, batch):
        nonlocal calls
        if torch.is_grad_enabled() and batch.units > 2:
            calls += 1
            if calls > 2:  # in the third step, two of which were saved
                raise torch.OutOfMemoryError(shortages.SAID)
        return original(self, batch)

    with mock.patch.object(owner, name, short):
        events = attempts_until_the_end(create_run(spec))
    assert rungs(events) == [("step", {"train.micro_batch": 2, "train.gradient_accumulation": 2})]
    by_step = {event["step"]: event["loss"] for event in events if event["kind"] == "step"}
    assert [by_step[step] for step in sorted(by_step)] == pytest.approx(losses(undisturbed), rel=1e-4, abs=1e-6)


def test_the_bases_way_over_the_rows_takes_fewer_at_once(tmp_path: Path, llama: Path) -> None:
    spec = a_spec(tmp_path, llama, "dpo", "pairs")
    _, undisturbed = train(spec)
    original = SequenceObjective.base_values

    def short(self, batch):
        if batch.units > 3:
            raise torch.OutOfMemoryError(shortages.SAID)
        return original(self, batch)

    with mock.patch.object(SequenceObjective, "base_values", short):
        events = attempts_until_the_end(create_run(spec))
    assert {where for where, _ in rungs(events)} == {"evaluation"}
    assert losses(events) == pytest.approx(losses(undisturbed), rel=1e-4)
    assert where_by_phase("preparing", "what the base makes of the rows") == "evaluation"
