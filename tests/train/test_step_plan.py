"""Which rows a step learns from: every example once an epoch, whatever the arrangement."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokenise import Example
from engine.spec import ScheduleSection
from engine.train.batches import StepPlan, collate, evaluation_batches
from engine.train.optimizer import rate_share


def _examples(lengths: list[int]) -> list[Example]:
    examples = []
    for row, length in enumerate(lengths):
        trained = np.zeros(length, dtype=bool)
        trained[length // 2 + 1 :] = True
        trained[-1] = True
        examples.append(Example(np.arange(length, dtype=np.int32) + 1, trained, row))
    return examples


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 32), min_size=1, max_size=60),
    packing=st.booleans(),
    micro_batch=st.integers(1, 5),
    accumulation=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_an_epoch_sees_every_example_once_and_no_row_is_too_long(lengths, packing, micro_batch, accumulation, seed):
    plan = StepPlan(
        _examples(lengths),
        sequence_length=32,
        packing=packing,
        micro_batch=micro_batch,
        gradient_accumulation=accumulation,
        seed=seed,
    )
    for epoch in range(2):
        first = epoch * plan.steps_per_epoch
        steps = [plan.micro_batches(step) for step in range(first, first + plan.steps_per_epoch)]
        seen = Counter(example.row for step in steps for batch in step for example in batch)
        assert seen == Counter(range(len(lengths)))
        for step in steps:
            assert 1 <= len(step) <= accumulation
            for batch in step:
                assert sum(len(example.input_ids) for example in batch) <= 32 * micro_batch
    assert 0 < plan.packing_efficiency <= 1


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(2, 20), min_size=1, max_size=8), padded=st.booleans())
def test_a_batch_holds_the_documents_and_their_targets_unchanged(lengths, padded):
    examples = _examples(lengths)
    batch = collate(examples, padded=padded)
    assert batch.tokens == sum(lengths)
    flat_ids, flat_positions = batch.input_ids.flatten(), batch.position_ids.flatten()
    expected = np.concatenate([example.input_ids[example.trained] for example in examples])
    assert batch.labels.tolist() == expected.tolist()
    # The state that predicts a label is that of the token before it, in the same document.
    assert (flat_ids[batch.sources] + 1 == batch.labels).all()
    assert (flat_positions[batch.sources] + 1 == flat_positions[batch.sources + 1]).all()
    if padded:
        assert batch.attention_mask.sum(1).tolist() == lengths


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 50), min_size=1, max_size=40),
    budget=st.integers(10, 120),
    padded=st.booleans(),
)
def test_evaluation_batches_hold_all_rows_within_the_budget(lengths, budget, padded):
    batches = evaluation_batches(_examples(lengths), budget, padded=padded)
    assert Counter(length for batch in batches for length in batch.document_lengths) == Counter(lengths)
    for batch in batches:
        assert batch.input_ids.numel() <= budget or len(batch.document_lengths) == 1


@settings(max_examples=40, deadline=None)
@given(
    total=st.integers(1, 500),
    warmup=st.floats(0, 0.9),
    kind=st.sampled_from(["cosine", "linear", "constant"]),
    minimum=st.floats(0, 0.5),
)
def test_the_rate_rises_over_the_warm_up_and_never_again(total, warmup, kind, minimum):
    spec = ScheduleSection(kind=kind, warmup_share=warmup, minimum_share=minimum)
    shares = [rate_share(step, total, spec) for step in range(total)]
    steps_up = math.ceil(warmup * total)
    assert all(0 < share <= 1 or math.isclose(share, minimum, abs_tol=1e-12) for share in shares)
    assert shares[:steps_up] == sorted(shares[:steps_up])
    assert shares[steps_up:] == sorted(shares[steps_up:], reverse=True)
    if steps_up < total:
        assert shares[steps_up] == pytest.approx(1.0)
