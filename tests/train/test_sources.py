"""Several data sources in one run: each as often as it should come, and its own losses, right and without a trace in
what is learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import build_setup, losses, make_spec, train, write_chats

from engine.run.telemetry.folding import fold
from engine.spec import RunSpec
from engine.train.tally import RecentLosses, SourceTally


def mixed_spec(llama: Path, folder: Path, **train_values: Any) -> RunSpec:
    """Two files, the second three times an epoch; a part of each held out."""
    files = [
        write_chats(folder / f"{name}.jsonl", rows, seed) for seed, (name, rows) in enumerate((("a", 40), ("b", 20)))
    ]
    sources = [str(files[0]), {"path": str(files[1]), "repeats": 3.0}]
    return make_spec(
        llama,
        files[0],
        data={"train": sources, "held_out_share": 0.2},
        train={"max_steps": 6, "micro_batch": 2, "gradient_accumulation": 2, **train_values},
        evaluation={"every_steps": 3, "answers": 0},
    )


def test_each_source_has_its_own_losses(llama: Path, tmp_path: Path):
    spec = mixed_spec(llama, tmp_path)
    _, events = train(spec)
    setup = build_setup(spec)
    (before,) = (event for event in events if event["kind"] == "evaluation" and event["when"] == "before")
    for source in (0, 1):
        rows = [each for each in setup.dataset.held_out if each.source == source]
        plain = sum(map(setup.forward.plain_loss, rows)) / sum(int(each.trained.sum()) for each in rows)
        assert before["source_losses"][source] == pytest.approx(plain, abs=1e-4)

    first = next(event for event in events if event["kind"] == "step")
    examples = [each for batch in setup.plan.micro_batches(0) for each in batch]
    setup.model.eval()
    for source in (0, 1):
        rows = [each for each in examples if each.source == source]
        plain = sum(map(setup.forward.plain_loss, rows)) / sum(int(each.trained.sum()) for each in rows)
        assert first["source_losses"][source] == pytest.approx(plain, abs=1e-4)

    assert setup.plan.examples_per_step == pytest.approx(
        sum(len(batch) for step in range(setup.plan.steps_per_epoch) for batch in setup.plan.micro_batches(step))
        / setup.plan.steps_per_epoch
    )
    facts = setup.plan_facts()
    assert [source["repeats"] for source in facts["sources"]] == [1, 3]
    epoch = [
        each.source
        for step in range(setup.plan.steps_per_epoch)
        for batch in setup.plan.micro_batches(step)
        for each in batch
    ]
    assert [epoch.count(0), epoch.count(1)] == [facts["sources"][0]["rows"], 3 * facts["sources"][1]["rows"]]
    assert [source["name"] for source in facts["sources"]] == ["a.jsonl", "b.jsonl"]
    assert sum(source["rows"] for source in facts["sources"]) == facts["train_rows"]
    assert sum(source["share"] for source in facts["sources"]) == pytest.approx(1)
    state = fold({"v": 1, "seq": seq, "at": 0.0, **event} for seq, event in enumerate(events))
    assert len(state.source_losses) == 2 and None not in state.source_losses


def test_a_mixed_run_goes_on_bit_for_bit(llama: Path, tmp_path: Path):
    spec = mixed_spec(llama, tmp_path)
    whole = losses(train(spec)[1])
    parted, first = train(spec, stop_after=2)
    assert losses(first) + losses(train(spec, parted)[1]) == whole


def test_a_run_of_one_source_tells_nothing_of_sources(llama: Path, tmp_path: Path):
    spec = make_spec(llama, write_chats(tmp_path / "a.jsonl", 20), train={"max_steps": 2})
    _, events = train(spec)
    assert not any("source_losses" in event for event in events)
    assert "sources" not in build_setup(spec).plan_facts()


def test_losses_are_summed_by_source():
    tally = SourceTally(3, torch.device("cpu"))
    tally.add(np.array([0, 2, 0]), torch.tensor([1.0, 5.0, 3.0]))
    tally.add(np.array([0]), torch.tensor([2.0]))
    assert tally.means() == (2.0, None, 5.0)
    assert tally.counts.tolist() == [3, 0, 1]


def test_a_source_that_is_seldom_drawn_keeps_its_last_loss():
    recent = RecentLosses(2)
    recent.add([4.0, 9.0], np.array([4, 3]))
    for _ in range(100):
        recent.add([10.0, 0.0], np.array([5, 0]))
    assert recent.means() == pytest.approx((2.0, 3.0), abs=0.01)
    assert RecentLosses(1).means() == (None,)
