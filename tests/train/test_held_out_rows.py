"""Held-out loss is measured on as many rows as are asked for, the same ones in every run of the same data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objective_data import write_rows
from training import build_setup, make_spec, train, write_chats

from engine.data.examples import Examples
from engine.spec import RunSpec


def ids(examples: Examples) -> list[bytes]:
    return [example.input_ids.tobytes() for example in examples]


def before(events: list[dict[str, Any]]) -> float:
    return next(event["held_out_loss"] for event in events if event["kind"] == "evaluation")


def test_the_first_rows_are_a_fair_sample_that_grows(llama: Path, tmp_path: Path) -> None:
    rows, held_out = write_chats(tmp_path / "rows.jsonl", 40), write_chats(tmp_path / "held.jsonl", 60, seed=1)

    def spec(count: int) -> RunSpec:
        return make_spec(llama, rows, held_out, train={"max_steps": 1}, evaluation={"rows": count})

    few, more, whole = (build_setup(spec(count)) for count in (10, 30, 0))
    assert (len(few.held_out), len(more.held_out), len(whole.held_out)) == (10, 30, 60)
    assert len(whole.dataset.held_out) == len(few.dataset.held_out) == 60
    assert ids(few.held_out) == ids(more.held_out)[:10] == ids(whole.held_out)[:10]
    assert [example.row for example in whole.held_out] != sorted(example.row for example in whole.held_out)
    assert (few.plan_facts()["held_out_rows"], few.plan_facts()["measured_rows"]) == (60, 10)

    _, events = train(spec(10))
    plain = sum(map(few.forward.plain_loss, few.held_out)) / sum(int(each.trained.sum()) for each in few.held_out)
    assert before(events) == pytest.approx(plain, abs=1e-4)


def test_a_row_that_moves_in_its_file_is_measured_all_the_same(llama: Path, tmp_path: Path) -> None:
    rows, held_out = write_chats(tmp_path / "rows.jsonl", 20), write_chats(tmp_path / "held.jsonl", 40, seed=1)
    first = build_setup(make_spec(llama, rows, held_out, evaluation={"rows": 12})).held_out
    lines = held_out.read_text().splitlines()
    held_out.write_text("\n".join(reversed(lines)) + "\n")
    assert ids(build_setup(make_spec(llama, rows, held_out, evaluation={"rows": 12})).held_out) == ids(first)


def test_parts_of_a_long_text_count_each(llama: Path, tmp_path: Path) -> None:
    rows, held_out = write_chats(tmp_path / "rows.jsonl", 20), tmp_path / "long.jsonl"
    words = np.random.default_rng(0).integers(0, 9, 3000)
    texts = (" ".join(f"word{number}" for number in words), "another text")
    held_out.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    setup = build_setup(make_spec(llama, rows, held_out, evaluation={"rows": 8}))
    assert len(setup.held_out) == 8 < len(setup.dataset.held_out)
    parts = ids(setup.dataset.held_out)
    assert ids(setup.held_out) == parts[:8]
    assert set(map(len, parts[:-1])) != {len(parts[0])}  # the short text and the last part stand anywhere


def test_only_what_is_measured_is_compared_with_the_base(llama: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "pairs.jsonl", "pairs", 60)
    spec = make_spec(
        llama,
        rows,
        data={"held_out_share": 0.3},
        objective={"kind": "dpo"},
        train={"max_steps": 2},
        evaluation={"rows": 5},
    )
    setup = build_setup(spec)
    run, events = train(spec)
    assert before(events) == pytest.approx(0.6931, abs=1e-3)
    from engine.train.checkpoints.tensor_file import shapes

    kept = shapes(run.evaluation / "references.safetensors")["values"]
    assert kept == (len(setup.dataset.train) + 5, 2)
