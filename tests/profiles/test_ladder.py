"""The ladder: the same rows in every step, always less memory, and an end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.ladder import ADJUSTABLE, ANSWER_BATCH, EVALUATION_TOKENS, WHERES, next_rung

USUAL: dict[str, Any] = {
    "data.sequence_length": 512,
    "train.micro_batch": 4,
    "train.gradient_accumulation": 2,
    "train.gradient_checkpointing": 0,
    "train.offload_checkpoints": False,
    "train.loss_chunk": 1024,
    "optimizer.kind": "adamw",
    "evaluation.answers": 50,
    EVALUATION_TOKENS: 2048,
    ANSWER_BATCH: 32,
}


def changes(where: str, *, on_gpu: bool = True, learnt: bool = False, **values: Any) -> list[dict[str, tuple]]:
    """The changes of each rung that a run takes when it runs out at `where` again and again."""
    at, found = {**USUAL, **values}, []
    while rung := next_rung(at, where, on_gpu=on_gpu, learnt=learnt):  # type: ignore[arg-type]
        found.append(dict(rung.changes))
        at = rung.after(at)
    return found


def test_a_step_gives_up_rows_at_once_then_activations_then_logits_then_what_only_a_gpu_has():
    rows = [
        {"train.micro_batch": (4, 2), "train.gradient_accumulation": (2, 4)},
        {"train.micro_batch": (2, 1), "train.gradient_accumulation": (4, 8)},
        *({"train.gradient_checkpointing": pair} for pair in ((0, 4), (4, 2), (2, 1))),
        *({"train.loss_chunk": pair} for pair in ((1024, 256), (256, 64))),
    ]
    gpu = [{"train.offload_checkpoints": (False, True)}]
    optimizers = [{"optimizer.kind": ("adamw", "paged_adamw")}, {"optimizer.kind": ("paged_adamw", "paged_adamw_8bit")}]
    assert changes("step", on_gpu=False) == rows
    assert changes("step", on_gpu=True, learnt=True) == rows + gpu
    assert changes("step", on_gpu=True, learnt=False) == rows + gpu + optimizers


def test_measuring_gives_up_its_own_rows_before_the_step_is_touched():
    assert changes("evaluation", on_gpu=False)[:2] == [{EVALUATION_TOKENS: (2048, 512)}, {EVALUATION_TOKENS: (512, 1)}]
    assert changes("answers", on_gpu=False)[:4] == [
        *({ANSWER_BATCH: pair} for pair in ((32, 8), (8, 2), (2, 1))),
        {"evaluation.answers": (50, 0)},
    ]
    assert (
        changes("evaluation", on_gpu=False)[2:] == changes("answers", on_gpu=False)[4:] == changes("step", on_gpu=False)
    )


def test_a_run_that_does_not_even_load_tries_the_leanest_once():
    (everything,) = changes("loading", on_gpu=False)
    assert everything == {
        "train.micro_batch": (4, 1),
        "train.gradient_accumulation": (2, 8),
        "train.gradient_checkpointing": (0, 1),
        "train.loss_chunk": (1024, 64),
    }


@given(
    where=st.lists(st.sampled_from(WHERES), min_size=200, max_size=200),
    micro_batch=st.integers(1, 300),
    accumulation=st.integers(1, 100),
    every=st.integers(0, 40),
    chunk=st.integers(16, 1 << 20),
    length=st.integers(8, 1 << 20),
    kind=st.sampled_from(["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor"]),
    on_gpu=st.booleans(),
    learnt=st.booleans(),
)
def test_wherever_memory_runs_out_the_rows_of_a_step_stay_and_the_ladder_ends(
    where, micro_batch, accumulation, every, chunk, length, kind, on_gpu, learnt
):
    values = {
        **USUAL,
        "data.sequence_length": length,
        "train.micro_batch": micro_batch,
        "train.gradient_accumulation": accumulation,
        "train.gradient_checkpointing": every,
        "train.loss_chunk": chunk,
        "optimizer.kind": kind,
        EVALUATION_TOKENS: micro_batch * length,
    }
    ended = set()
    for place in where:
        rung = next_rung(values, place, on_gpu=on_gpu, learnt=learnt)
        if rung is None:
            ended.add(place)
            continue
        assert rung.changes.keys() <= set(ADJUSTABLE)
        assert all(values[field] == old != new for field, (old, new) in rung.changes.items())
        values = rung.after(values)
        assert values["train.micro_batch"] * values["train.gradient_accumulation"] == micro_batch * accumulation
        assert values["data.sequence_length"] == length
        assert not (learnt and values["optimizer.kind"] != kind)
    # 200 shortages are far more than there are rungs.
    assert next_rung(values, where[-1], on_gpu=on_gpu, learnt=learnt) is None


@pytest.mark.parametrize(("rows", "accumulation", "fewer"), [(3, 4, 2), (3, 1, 1), (5, 1, 1), (6, 1, 3), (7, 2, 2)])
def test_odd_numbers_of_rows_are_divided_exactly(rows: int, accumulation: int, fewer: int):
    first = changes("step", **{"train.micro_batch": rows, "train.gradient_accumulation": accumulation})[0]
    assert first["train.micro_batch"] == (rows, fewer)
    assert first["train.gradient_accumulation"] == (accumulation, rows * accumulation // fewer)
