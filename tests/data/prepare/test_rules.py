"""Which rows are used: every count adds up, and each rule does what it says whatever the rows are."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache

import numpy as np
import pytest
from chat_families import tokenizer_of
from hypothesis import given
from hypothesis import strategies as st

from engine.data.prepare.preparing import prepare
from engine.data.prepare.shard_writing import ShardRow, write_shard
from engine.data.prepare.shards import Shard
from engine.data.prepare.split import hold_out, split_units
from engine.data.prepare.store import ShardStore, StoredShard
from engine.data.prepare.table import Fate, measure
from engine.data.tokens.reference import describe
from engine.data.tokens.text_tokenizer import TextTokenizer
from engine.spec import DataSection
from profiles.problem import Problem


@cache
def tokenizer() -> TextTokenizer:
    return TextTokenizer("chatml", describe(tokenizer_of("chatml")))


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))

    def load(*sources, **settings):
        train = [write(tmp_path / f"{at}.jsonl", rows) for at, rows in enumerate(sources)]
        data = prepare(DataSection(**{"train": tuple(train), "sequence_length": 64, **settings}), tokenizer())
        for source in data.sources:
            fates = source.trained + source.held_out + source.left_out + source.set_aside
            assert fates == source.rows and sum(source.reasons.values()) == source.set_aside
        path = tmp_path / "rejects.jsonl"
        data.write_rejects(path)
        assert len(path.read_text().splitlines()) == data.reject_count
        return data

    return load


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ask(number, **more):
    return {"prompt": f"What is {number} and {number}?", "completion": f"It is {2 * number}.", **more}


def rows_of(examples):
    return {example.row for example in examples}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=60), st.floats(0, 0.99), st.integers(0, 9))
def test_units_are_never_divided_and_strata_get_their_share(rows, share, seed):
    digests = np.array([digest * 2**58 + 1 for digest, _ in rows], dtype=np.uint64)
    strata = np.array([stratum for _, stratum in rows], dtype=np.int32)
    units = split_units(digests, None, seed)
    for held_out in (hold_out(units, share), hold_out(units, share, strata)):
        sides = {(unit, bool(held)) for unit, held in zip(units.tolist(), held_out, strict=True)}
        assert len(sides) == len(set(units.tolist()))
        if share and len(sides) > 1:
            assert held_out.any() and not held_out.all()
    distinct = set(units.tolist())
    held_out = set(units[hold_out(units, share)].tolist())
    assert len(held_out) >= min(round(share * len(distinct)), 10, len(distinct) - 1)
    alone = np.array([hold_out(units[at : at + 1], share).any() for at in range(len(units))])
    assert not alone.any()


@st.composite
def sequences(draw):
    tokens = draw(st.integers(1, 40))
    edges = sorted(draw(st.lists(st.integers(0, tokens), max_size=6, unique=True)))
    spans = [(edges[at], edges[at + 1]) for at in range(0, len(edges) - 1, 2)]
    return np.arange(tokens, dtype=np.int32) + draw(st.sampled_from([0, 70_000])), spans


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.lists(sequences(), min_size=1, max_size=3),
            st.sampled_from([("conversation", ()), ("preference", ()), ("feedback", ("liked",))]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(8, 45),
    st.sampled_from(["answers", "last_answer", "everything"]),
)
def test_counts_of_columns_are_those_of_the_examples_that_are_read(tmp_path_factory, rows, length, train_on):
    """The arrays say of every row what reading it gives: lengths, targets, what is cut and what is left of it."""
    made = []
    for position, (in_parts, parts, (kind, liked)) in enumerate(rows):
        windows = in_parts and len(parts) == 1 and not liked
        # Only a preference has two sequences or more.
        parts = [parts[0], parts[-1]] if kind == "preference" and not windows else parts[:1]
        if windows:
            parts = [(parts[0][0], [(0, len(parts[0][0]))])]
        made.append(ShardRow(position * 2, 0, position, position, kind, "x", windows, parts, 0, liked, (), 0, ""))
    path = tmp_path_factory.mktemp("shard") / "s"
    facts = write_shard(
        path, made, (), {}, columns={}, several_labels=False, unused=set(), warnings=Counter(), personal=Counter()
    )
    shard = Shard(path)
    assert shard.facts == facts
    table = shard.columns("kind", "sequences", "tokens", "answers", "spans", "windows", "offset", "size")
    measured = measure(table, length, train_on)
    records = (shard.records_begin, shard.records_bytes, facts.records_sha256, facts.id_dtype)
    store = ShardStore([StoredShard(path, *records, 100, 0, np.zeros(1, np.int32))], length, train_on)
    for at, row in enumerate(made):
        offset, size = int(table["offset"][at]), int(table["size"][at])
        if row.windows:
            examples = [
                store._window(0, offset, window, min(length, len(row.sequences[0][0]) - window * (length - 1)))
                for window in range(measured.windows[at])
            ]
            ids = row.sequences[0][0].tolist()
            assert measured.fate[at] == (Fate.ONE_TOKEN if len(ids) < 2 else Fate.TRAIN)
            if len(ids) > 1:
                assert [*examples[0].input_ids[:1], *(id for each in examples for id in each.input_ids[1:])] == ids
            assert sum(int(each.trained.sum()) for each in examples) == measured.targets[at] == len(ids) - 1
            assert measured.lengths[at] == len(ids)
            continue
        example = store._whole(0, store._bytes(0, offset, size))
        assert example.row == 100 + 2 * at
        assert len(example) == measured.lengths[at] and int(example.trained.sum()) == measured.targets[at]
        parts = [len(ids[:length]) for ids, _ in row.sequences]
        assert example.parts == (tuple(parts) if len(parts) > 1 else ())
        assert measured.is_cut[at] == any(len(ids) > length for ids, _ in row.sequences)
        trained = np.split(example.trained, np.cumsum(parts)[:-1])
        if train_on == "everything" and row.kind != "conversation":
            for mask, (_, spans) in zip(trained, row.sequences, strict=True):
                assert {*np.flatnonzero(mask).tolist()} <= {at for span in spans for at in range(*span)}
        lost = any(spans and not mask.any() for (_, spans), mask in zip(row.sequences, trained, strict=True))
        assert (measured.fate[at] == Fate.CUT_OFF) == lost


def test_rows_of_a_group_stay_together_and_their_copies_are_not_on_both_sides(load):
    rows = [ask(number, patient=f"p{number % 20}") for number in range(400)]
    data = load(
        [*rows, *(ask(number, patient="other") for number in range(40))], group_by="patient", held_out_share=0.3
    )
    groups = {"train": set(), "held_out": set()}
    for side in groups:
        groups[side] = {row % 20 for row in rows_of(getattr(data, side)) if row < 400}
    assert groups["held_out"] and not groups["train"] & groups["held_out"]
    copies = data.sources[0].reasons.get("held out twin", 0)
    assert copies and any("in another group than a held-out copy" in note for note in data.notes)
    assert "is in another group than its held-out copy, line " in data.first_rejects[0].reason


def test_a_group_of_the_held_out_file_is_not_learnt_from(load, tmp_path):
    rows = [ask(number, patient=f"p{number % 20}") for number in range(400)]
    held_out = write(tmp_path / "held_out.jsonl", [ask(number, patient="p3") for number in range(900, 905)])
    data = load([*rows, ask(500)], group_by="patient", held_out=held_out, max_rejected_share=0.0)
    assert data.sources[0].reasons == {"group held out": 20}
    assert {row % 20 for row in rows_of(data.train)} == {*range(20)} - {3} and len(data.train) == 381
    assert data.first_rejects[0].reason == "is of a group that the held-out file has rows of"


def test_a_column_that_is_written_wrongly_is_told_before_it_lets_the_split_leak(load):
    rows = [ask(number, patient=f"p{number % 20}") for number in range(400)]
    for field in ("group_by", "stratify_by"):
        with pytest.raises(Problem, match=rf"data.{field}: names the column `pateint`, which the rows do not have"):
            load(rows, **{field: "pateint"})
    data = load([*rows, *(ask(number) for number in range(400, 409))], group_by="patient")
    assert "9 rows are without a patient, and so kept together with no others but copies" in data.notes
    alone = load([ask(number, patient="p") for number in range(9)], group_by="patient")
    assert any("no rows are held out (all rows are of one group)" in note for note in alone.notes)


def test_a_file_of_which_nothing_can_be_used_is_refused_however_few_its_rows(load, tmp_path):
    empty = {"prompt": "What is 3 and 3?", "completion": ""}
    held_out = write(tmp_path / "held_out.jsonl", [empty, empty])
    with pytest.raises(Problem, match=r"held_out\.jsonl: none of its 2 rows can be used: line 1 has an empty"):
        load([ask(number) for number in range(900)], held_out=held_out)
    with pytest.raises(Problem, match="its only row cannot be used"):
        load([ask(number) for number in range(900)], [empty])


def test_strata_are_held_out_in_equal_shares(load):
    rows = [ask(number, ward="large" if number % 10 else "small") for number in range(400)]
    held_out = rows_of(load(rows, stratify_by="ward", held_out_share=0.1).held_out)
    assert len({row for row in held_out if row % 10 == 0}) == 4 and len(held_out) == 40
    apart = load([ask(number, ward=number) for number in range(400)], stratify_by="ward", held_out_share=0.1)
    assert any("only 1 row is held out, and 40 were to be: most of the 400 values" in note for note in apart.notes)


def test_a_subset_grows_to_the_whole_and_what_is_held_out_stays_so(load):
    rows = [ask(number) for number in range(3000)]
    small, more, whole = load(rows, rows=20), load(rows, rows=200), load(rows)
    assert len(small.train) == 20 and len(more.train) == 200 and small.sources[0].left_out == 3000 - 20 - 50
    assert rows_of(small.train) < rows_of(more.train) < rows_of(whole.train)
    assert rows_of(small.held_out) <= rows_of(more.held_out) <= rows_of(whole.held_out)
    assert any("left out, since data.rows asks for 20" in note for note in small.notes)


def test_copies_are_kept_or_dropped_as_asked(load):
    story = "The patient came in on Monday with a headache and a mild fever and was sent home with advice "
    near = [{"prompt": "Tell it.", "completion": story * 2 + end} for end in ("today.", "tonight.")]
    message = {"role": "user", "content": "What is 4 and 4?"}, {"role": "assistant", "content": "It is 8."}
    again = {"messages": message, "noted": "a copy in another shape and with other fields"}
    rows = [*map(ask, range(50)), *map(ask, range(4)), again, *near]
    assert load(rows).sources[0].set_aside == 0
    exact = load(rows, duplicates="drop_exact", max_rejected_share=0.0)
    assert next((each.line, each.reason) for each in exact.first_rejects) == (51, "is an exact copy of line 1")
    assert exact.reject_count == 5
    nearly = load(rows, duplicates="drop_near", sequence_length=256, max_rejected_share=0.0)
    assert nearly.sources[0].reasons == {"copy": 5, "near copy": 1}
    assert nearly.first_rejects[-1].reason == "is nearly the same as line 56"


def test_rows_of_a_benchmark_are_set_aside(load, tmp_path):
    long = "Which of the old towns by the river had the first stone bridge in the whole of the country"
    benchmark = write(tmp_path / "bench.jsonl", [{"question": f"{long}?", "answer": "None"}])
    rows = [*map(ask, range(50)), {"prompt": f"Quiz: {long}?", "completion": "Avignon."}]
    data = load(rows, benchmarks=(benchmark,), max_rejected_share=0.0, sequence_length=256)
    (rejected,) = data.first_rejects
    assert (rejected.line, rejected.reason) == (51, f"holds a row of a benchmark: {benchmark}, line 1")


def test_personal_data_is_masked_before_anything_is_learnt(load):
    rows = [ask(number, **{"completion": f"Write to person{number}@example.org today."}) for number in range(30)]
    data = load(rows, personal="mask", sequence_length=256)
    texts = [tokenizer().decode(example.input_ids) for example in data.train]
    assert texts and not any("example.org" in text for text in texts)
    assert any(note.startswith("personal data masked: 30 ") for note in data.notes)


def test_every_kind_of_row_becomes_its_kind_of_example(load):
    pairs = [{"prompt": f"Is {n} even?", "chosen": f"{n % 2 == 0}.", "rejected": f"Perhaps {n}."} for n in range(20)]
    data = load(pairs)
    example = data.train[0]
    assert data.kind == "preference" and len(example.parts) == 2 and sum(example.parts) == len(example)
    assert [part.any() for part in np.split(example.trained, [example.parts[0]])] == [True, True]
    assert data.held_out_rows

    thumbs = [{"prompt": f"Is {n} even?", "completion": f"{n % 2 == 0}.", "label": n % 3 > 0} for n in range(20)]
    data = load(thumbs)
    assert data.labels == ("disliked", "liked")
    assert all(each.labels == (int(each.row % 3 > 0),) and each.trained.any() for each in data.train)

    texts = [{"text": f"The number {n} again", "label": "even" if n % 2 == 0 else "odd"} for n in range(20)]
    data = load(texts)
    assert (data.labels, data.several_labels, data.target_tokens) == (("even", "odd"), False, 0)
    assert all(each.labels == (each.row % 2,) for each in data.train)

    alike = [{"anchor": f"Question {n}", "positive": f"Answer {n}", "negative": f"Nonsense {n}"} for n in range(20)]
    data = load(alike)
    assert data.kind == "similar" and all(len(each.parts) == 3 for each in data.train)

    with pytest.raises(Problem, match="Give each kind of rows a run of its own"):
        load(alike, texts)


def test_sources_are_mixed_by_weight_or_repeated_as_asked(load, tmp_path):
    few, many = (
        write(tmp_path / "few.jsonl", map(ask, range(10))),
        write(tmp_path / "many.jsonl", map(ask, range(10, 50))),
    )
    sources = lambda **given: tuple({"path": str(path), **given} for path in (few, many))  # noqa: E731
    assert load(train=sources(weight=1.0), held_out_share=0.0).repeats == (4.0, 1.0)
    assert load(train=sources(repeats=3.0)).repeats == (3.0, 3.0)
    assert load(train=({"path": str(few), "weight": 2.0}, str(many)), held_out_share=0.0).repeats == (8.0, 1.0)
    with pytest.raises(Problem, match=r"source 2: has repeats, and there are sources with weights"):
        load(train=({"path": str(few), "weight": 1.0}, {"path": str(many), "repeats": 2.0}))


def test_a_row_of_a_folder_is_told_by_its_own_file(load, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.jsonl", map(ask, range(30)))
    write(folder / "b.jsonl", [*map(ask, range(30, 60)), {"reply": 1}, ask(1)])
    data = load(train=(folder,), duplicates="drop_exact", max_rejected_share=0.05)
    assert [(each.path, each.line) for each in data.first_rejects] == [
        (str(folder / "b.jsonl"), 31),
        (str(folder / "b.jsonl"), 32),
    ]
    assert data.first_rejects[1].reason == f"is an exact copy of line 2 of {folder / 'a.jsonl'}"
