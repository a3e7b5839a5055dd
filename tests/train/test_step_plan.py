"""Which rows a step learns from: every example as often as it comes in an epoch, whatever the arrangement."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.examples import Example, Examples
from engine.data.mixing import partial_count
from engine.spec import ScheduleSection
from engine.train.batches import collate, evaluation_batches
from engine.train.optimizer import rate_share
from engine.train.step_plan import StepPlan


def _examples(lengths: list[int], sources: list[int] | None = None) -> Examples:
    examples = []
    for row, length in enumerate(lengths):
        trained = np.zeros(length, dtype=bool)
        trained[length // 2 + 1 :] = True
        trained[-1] = True
        source = sources[row] if sources else 0
        examples.append(Example(np.arange(length, dtype=np.int32) + 1, trained, row, source=source))
    return Examples.of(examples)


def _seen(plan: StepPlan, steps: range) -> Counter[int]:
    return Counter(example.row for step in steps for batch in plan.micro_batches(step) for example in batch)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 32), min_size=1, max_size=60),
    packing=st.booleans(),
    length_group=st.integers(1, 5),
    micro_batch=st.integers(1, 5),
    accumulation=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_an_epoch_sees_every_example_once_and_no_row_is_too_long(
    lengths, packing, length_group, micro_batch, accumulation, seed
):
    plan = StepPlan(
        _examples(lengths),
        sequence_length=32,
        packing=packing,
        micro_batch=micro_batch,
        gradient_accumulation=accumulation,
        seed=seed,
        length_group=length_group,
    )
    for epoch in range(2):
        first = epoch * plan.steps_per_epoch
        assert plan.epoch_at(first) == epoch
        assert _seen(plan, range(first, first + plan.steps_per_epoch)) == Counter(range(len(lengths)))
        for step in range(first, first + plan.steps_per_epoch):
            batches = plan.micro_batches(step)
            assert 1 <= len(batches) <= accumulation
            assert all(sum(map(len, batch)) <= 32 * micro_batch for batch in batches)
    assert plan.total_steps(2.0, None) == 2 * plan.steps_per_epoch
    assert plan.total_steps(0.5, None) == math.ceil(plan.steps_per_epoch / 2)
    assert 0 < plan.packing_efficiency <= 1
    assert 0 <= plan.wasted_share(padded=False) == 1 - plan.packing_efficiency
    assert 0 <= plan.wasted_share_padded() < 1
    slots = sum(
        collate(batch, padded=True).input_ids.numel()
        for step in range(plan.steps_per_epoch)
        for batch in plan.micro_batches(step)
    )
    assert plan.wasted_share(padded=True) == pytest.approx(1 - sum(lengths) / slots)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(2, 32), st.integers(0, 2)), min_size=1, max_size=40),
    repeats=st.lists(st.sampled_from([0.3, 0.5, 1.0, 1.7, 3.0]), min_size=3, max_size=3),
    packing=st.booleans(),
    seed=st.integers(0, 99),
)
def test_sources_come_as_often_as_they_should_and_epochs_follow_each_other(rows, repeats, packing, seed):
    lengths, sources = [length for length, _ in rows], [source for _, source in rows]
    counts = [sources.count(source) for source in range(3)]

    def new_plan() -> StepPlan:
        return StepPlan(
            _examples(lengths, sources),
            sequence_length=32,
            packing=packing,
            micro_batch=2,
            gradient_accumulation=1,
            seed=seed,
            repeats=repeats,
        )

    plan = new_plan()
    bounds = [plan.total_steps(float(epochs), None) for epochs in range(4)]
    for epoch in range(3):
        steps = range(bounds[epoch], bounds[epoch + 1])
        assert all(epoch <= plan.epoch_at(step) < epoch + 1 for step in steps)
        by_source = Counter(sources[row] for row in _seen(plan, steps).elements())
        for source, (count, often) in enumerate(zip(counts, repeats, strict=True)):
            assert by_source[source] == int(often) * count + partial_count(count, often)
    # A resumed run asks for a step in the middle first.
    last = bounds[3] - 1
    rows_of = [[each.row for each in batch] for batch in plan.micro_batches(last)]
    assert [[each.row for each in batch] for batch in new_plan().micro_batches(last)] == rows_of


def test_a_plan_reads_no_example_before_a_step_asks_for_it():
    class Unread:
        def read(self, places, index):
            raise AssertionError("an example was read")

    lengths = np.random.default_rng(0).integers(2, 500, 100_000).astype(np.int32)
    examples = _examples([3])
    places = examples._places
    lazy = Examples(
        Unread(),
        type(places)(
            shard=np.zeros(lengths.size, np.int32),
            offset=np.zeros(lengths.size, np.uint32),
            size_bytes=np.zeros(lengths.size, np.uint32),
            lengths=lengths,
            sources=np.zeros(lengths.size, np.int16),
        ),
    )
    settings_ = {"sequence_length": 1024, "micro_batch": 4, "gradient_accumulation": 2, "seed": 0}
    for packing in (True, False):
        plan = StepPlan(lazy, packing=packing, length_group=4, **settings_)
        assert plan.total_steps(3.0, None) > 1000
        assert plan.wasted_share(padded=True) >= 0
        with pytest.raises(AssertionError, match="was read"):
            plan.micro_batches(0)
    assert len(evaluation_batches(lazy, 4096, padded=True, collate=partial(collate, padded=True))) > 1000


def test_a_pair_that_is_longer_than_a_sequence_is_not_divided():
    pair = Example(np.arange(50, dtype=np.int32), np.arange(50) % 25 > 20, row=0, parts=(25, 25))
    single = Example(np.arange(30, dtype=np.int32), np.arange(30) > 20, row=1)
    plan = StepPlan(
        Examples.of([pair, single]), sequence_length=32, packing=True, micro_batch=1, gradient_accumulation=1, seed=0
    )
    assert sorted(len(batch) for step in range(2) for batch in plan.micro_batches(step)) == [1, 1]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(2, 20), min_size=1, max_size=3), min_size=1, max_size=8), padded=st.booleans()
)
def test_a_batch_holds_the_documents_and_their_targets_unchanged(sizes, padded):
    examples = []
    for row, parts in enumerate(sizes):
        ids = np.concatenate([np.arange(part, dtype=np.int32) + 1 for part in parts])
        trained = np.concatenate([np.arange(part) > part // 2 for part in parts])
        examples.append(Example(ids, trained, row, source=row % 3, parts=tuple(parts) if len(parts) > 1 else ()))
    batch = collate(examples, padded=padded)
    lengths = [part for parts in sizes for part in parts]
    assert batch.tokens == sum(lengths)
    assert batch.document_lengths == tuple(lengths)
    flat_ids, flat_positions = batch.input_ids.flatten(), batch.position_ids.flatten()
    expected = np.concatenate([example.input_ids[example.trained] for example in examples])
    assert batch.labels.tolist() == expected.tolist()
    # The state that predicts a label is that of the token before it, in the same document.
    assert (flat_ids[batch.sources] + 1 == batch.labels).all()
    assert (flat_positions[batch.sources] + 1 == flat_positions[batch.sources + 1]).all()
    assert batch.unit_sources.tolist() == [each.source for each in examples for _ in range(each.trained.sum())]
    if padded:
        assert batch.attention_mask.sum(1).tolist() == lengths
        assert batch.input_ids.shape == (len(lengths), max(lengths))
    else:
        assert flat_positions.tolist() == [position for length in lengths for position in range(length)]


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 50), max_size=40),
    budget=st.integers(10, 120),
    padded=st.booleans(),
)
def test_evaluation_batches_hold_all_rows_within_the_budget(lengths, budget, padded):
    batches = evaluation_batches(_examples(lengths), budget, padded=padded, collate=partial(collate, padded=padded))
    assert Counter(length for batch in batches for length in batch.document_lengths) == Counter(lengths)
    for batch in batches:
        assert batch.input_ids.numel() <= budget or len(batch.document_lengths) == 1
    widest = max((batch.input_ids.numel() for batch in batches), default=None)
    assert (batches.widest().input_ids.numel() if lengths else batches.widest()) == widest


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
