"""Preparation: the same examples however the work is divided, what was done is never done again, and a run keeps what
it began with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from chat_families import tokenizer_of

from engine.data.prepare import chunk_work, client, gather
from engine.data.prepare.benchmarks import read_benchmarks
from engine.data.prepare.cache import clean_up, prepared_root
from engine.data.prepare.preparing import prepare
from engine.data.prepare.shards import Shard
from engine.data.preview import preview
from engine.data.quality.leaks import LeakIndex
from engine.data.tokens.reference import describe
from engine.data.tokens.templates import KNOWN_TEMPLATES
from engine.data.tokens.text_tokenizer import TextTokenizer
from engine.run.directory import RunDirectory
from engine.spec import DataSection
from profiles.problem import Problem


def chat(number: int) -> dict:
    question = {"role": "user", "content": f"How much is {number} and 1?"}
    return {"messages": [question, {"role": "assistant", "content": f"It is {number + 1}."}]}


CHATS = [chat(number) for number in range(300)]


@cache
def tokenizer() -> TextTokenizer:
    # With a template that finetui knows, so that little data are prepared in this process.
    known = KNOWN_TEMPLATES["chatml"]
    description = describe(tokenizer_of("chatml"))
    return TextTokenizer("chatml", description, template_name=known.name, chat_template=known.text)


@pytest.fixture(autouse=True)
def small_chunks(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(gather, "TARGET_BYTES", 4096)


@pytest.fixture
def made(monkeypatch) -> list[Path]:
    """The shards that were really made, in this process."""
    paths: list[Path] = []
    write = chunk_work.write_shard
    monkeypatch.setattr(
        chunk_work, "write_shard", lambda path, *rest, **named: (paths.append(path), write(path, *rest, **named))[1]
    )
    return paths


def write(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    os.utime(path, (1, 1))  # long ago, so that the file's times say that it was not touched since
    return path


def contents(data) -> list:
    return [
        (each.input_ids.tolist(), each.trained.tolist(), each.row, each.source, each.parts, each.labels)
        for each in [*data.train, *data.held_out]
    ]


def test_the_examples_are_the_same_in_one_piece_and_in_many_by_several_processes(tmp_path, monkeypatch):
    rows = [*CHATS, "{", {"text": "one two three " * 300}, {"reply": 1}, *CHATS[:9]]
    spec = DataSection(train=(write(tmp_path / "a.jsonl", rows),), sequence_length=64)
    many = prepare(spec, tokenizer(), workers=2)
    assert len(list(prepared_root().rglob("*.safetensors"))) > 5
    monkeypatch.setattr(gather, "TARGET_BYTES", 2**30)
    shutil.rmtree(prepared_root() / "cut")
    one = prepare(spec, tokenizer(), workers=0, keep=tmp_path / "run")
    assert len(list((tmp_path / "run").rglob("*.safetensors"))) == 1
    assert contents(many) == contents(one) and many.notes == one.notes
    assert many.first_rejects == one.first_rejects
    assert [(row.row, row.expected) for row in many.held_out_rows] == [
        (row.row, row.expected) for row in one.held_out_rows
    ]


def test_examples_can_be_sliced_and_picked_without_being_read(tmp_path):
    train = prepare(DataSection(train=(write(tmp_path / "a.jsonl", CHATS),)), tokenizer()).train
    assert train.lengths.tolist() == [len(example) for example in train]
    assert [each.row for each in train[5:8]] == [train[at].row for at in (5, 6, 7)]
    assert [each.row for each in train[[7, 5, 7]]] == [train[at].row for at in (7, 5, 7)]
    assert len(train[train.lengths > train.lengths.min()]) < len(train)
    assert train[-1].row == train[len(train) - 1].row
    with pytest.raises(IndexError):
        train[len(train)]


def test_what_was_prepared_before_is_not_done_again(tmp_path, made):
    file = write(tmp_path / "a.jsonl", CHATS)
    first = prepare(DataSection(train=(file,)), tokenizer())
    count = len(made)
    assert count > 5
    # Nothing but the assembly depends on these.
    again = prepare(DataSection(train=(file,), sequence_length=32, train_on="everything", rows=10), tokenizer())
    assert len(made) == count and len(again.train) == 10
    # A file that grew: all but its last chunk stay.
    write(file, [*CHATS, *(chat(number) for number in range(300, 400))])
    grown = prepare(DataSection(train=(file,)), tokenizer())
    fresh = prepare(
        DataSection(train=(write(tmp_path / "b.jsonl", [*CHATS, *map(chat, range(300, 400))]),)), tokenizer()
    )
    assert count < len(made) <= count + 4
    assert contents(grown) == contents(fresh)
    assert {example.row for example in first.held_out} <= {example.row for example in grown.held_out}
    # Another split, another shape of the split's columns: other shards.
    count = len(made)
    prepare(DataSection(train=(file,), split_seed=1), tokenizer())
    assert len(made) > count


def test_a_preparation_that_was_killed_goes_on_where_it_was(tmp_path, made):
    spec = DataSection(train=(write(tmp_path / "a.jsonl", CHATS),))

    class Killed(BaseException):
        pass

    def kill(progress):
        if len(made) == 3:
            raise Killed

    gather._REPORT_SECONDS, usual = 0.0, gather._REPORT_SECONDS
    try:
        with pytest.raises(Killed):
            prepare(spec, tokenizer(), kill, workers=0)
    finally:
        gather._REPORT_SECONDS = usual
    # Of what it left, one shard is torn, as after a power cut.
    made[0].write_bytes(made[0].read_bytes()[:-5])
    done = {*made[1:]}
    data = prepare(spec, tokenizer(), workers=0)
    assert not done & {*made[3:]} and made[0] in made[3:]
    assert sum(report.rows for report in data.sources) == len(CHATS)


def test_a_run_reads_rows_as_the_preview_showed_them(tmp_path):
    labelled = [{"text": f"The number {number}", "label": "odd" if number % 2 else "even"} for number in range(300)]
    labelled[240]["label"] = ["even", "round"]
    for rows in (labelled, ["{bad"] * 20 + labelled):  # the second time that row lies beyond those that are looked at
        file = write(tmp_path / f"{len(rows)}.jsonl", rows)
        shown = preview(file).reading
        data = prepare(DataSection(train=(file,), max_rejected_share=0.1), tokenizer())
        assert shown is not None and data.several_labels == shown.several == (len(rows) == 300)
    late = ["{bad"] * 300 + CHATS
    data = prepare(DataSection(train=(write(tmp_path / "late.jsonl", late),), max_rejected_share=0.6), tokenizer())
    assert data.sources[0].set_aside == 300
    with pytest.raises(Problem, match="none of its 300 rows can be used: line 1 is not JSON"):
        prepare(DataSection(train=(write(tmp_path / "bad.jsonl", ["{bad"] * 300),)), tokenizer())


def test_an_untouched_file_is_not_even_read_again(tmp_path, made, monkeypatch):
    file = write(tmp_path / "a.jsonl", CHATS)
    first = prepare(DataSection(train=(file,)), tokenizer())
    monkeypatch.setattr(gather, "chunks_of", None)
    assert contents(prepare(DataSection(train=(file,)), tokenizer())) == contents(first)


def test_a_run_goes_on_with_the_data_that_it_began_with(tmp_path):
    file, keep = write(tmp_path / "a.jsonl", CHATS), tmp_path / "run" / "data"
    spec = DataSection(train=(file,))
    began = prepare(spec, tokenizer(), keep=keep, session="first")
    shutil.rmtree(prepared_root())
    assert contents(prepare(spec, tokenizer(), keep=keep, session="second")) == contents(began)

    write(file, CHATS[:-1])
    again = prepare(spec, tokenizer(), keep=keep, session="second")  # by itself, after memory ran out
    assert contents(again) == contents(began)
    assert f"{file} changed since the run began, which goes on with what it was then" in again.notes
    old = began.sources[0].sha256
    with pytest.raises(Problem, match=rf"changed since the run began \(SHA-256 was {old}, is [0-9a-f]{{64}}\)"):
        prepare(spec, tokenizer(), keep=keep, session="third")
    RunDirectory(keep.parent).accept_kept_data()
    assert contents(prepare(spec, tokenizer(), keep=keep, session="third")) == contents(began)
    file.unlink()
    gone = prepare(spec, tokenizer(), keep=keep, session="fourth")
    assert contents(gone) == contents(began) and any("is gone" in note for note in gone.notes)


def test_a_shard_that_is_lost_is_told(tmp_path):
    data = prepare(DataSection(train=(write(tmp_path / "a.jsonl", CHATS),)), tokenizer(), keep=tmp_path / "data")
    for path in (tmp_path / "data").rglob("*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(Problem, match="is shorter than it was"):
        data.train[0]


def test_a_shard_that_was_damaged_is_told_and_made_again(tmp_path):
    spec, keep = DataSection(train=(write(tmp_path / "a.jsonl", CHATS),)), tmp_path / "data"
    began = prepare(spec, tokenizer(), keep=keep, session="first")
    wanted = contents(began)
    path = next(keep.rglob("*.safetensors"))
    for damage in ("records", "end", "zeros", "nothing"):
        shard, whole = Shard(path), path.read_bytes()
        middle = shard.records_begin + shard.records_bytes // 2
        # In place, as a disk that forgets does, so that the cache's name for the same file leads to the same.
        path.write_bytes(
            {
                "records": whole[:middle] + b"\xff" * 8 + whole[middle + 8 :],
                "end": whole[:-5],
                "zeros": b"\0" * len(whole),
                "nothing": b"",
            }[damage]
        )
        if damage == "records":
            with pytest.raises(Problem, match="is damaged: it holds other bytes than were written"):
                contents(prepare(spec, tokenizer(), keep=keep, session="first"))
            path.unlink()  # as the Problem says
        assert contents(prepare(spec, tokenizer(), keep=keep, session="second")) == wanted
        assert Shard(path).facts == shard.facts
    path.unlink()
    write(tmp_path / "a.jsonl", CHATS[:-1])
    RunDirectory(keep.parent).accept_kept_data()
    with pytest.raises(Problem, match=r"has lost some of the prepared data that the run began with, and .* changed"):
        prepare(spec, tokenizer(), keep=keep, session="third")


def test_an_index_of_benchmarks_that_a_clean_up_took_a_part_of_is_made_again(tmp_path):
    asked = "Which of the old towns by the river had the first stone bridge in the whole of the country"
    benchmark = write(tmp_path / "bench.jsonl", [{"question": f"{asked}?", "answer": "None"}])
    rows = [*CHATS, {"prompt": f"Quiz: {asked}?", "completion": "Avignon."}]
    spec = DataSection(train=(write(tmp_path / "a.jsonl", rows),), benchmarks=(benchmark,), sequence_length=256)
    assert prepare(spec, tokenizer()).reject_count == 1
    (index,) = (prepared_root() / "benchmarks").iterdir()
    for path in index.iterdir():
        os.utime(path, (1, 1))
    assert prepare(spec, tokenizer()).reject_count == 1
    assert clean_up(prepared_root(), (), most_bytes=0) == 0  # it was used just now
    next(index.iterdir()).unlink()
    (prepared_root() / "cut" / "damaged.json").write_text("[]")
    write(tmp_path / "a.jsonl", [*rows, chat(999)])
    assert prepare(spec, tokenizer()).reject_count == 1


def test_an_index_of_benchmarks_that_another_process_made_meanwhile_stays(tmp_path, monkeypatch):
    benchmark = write(tmp_path / "bench.jsonl", [{"question": "Which town is it?", "answer": "None"}])
    save, others = LeakIndex.save, []

    def save_late(index, folder):
        monkeypatch.setattr(LeakIndex, "save", save)
        others.append(read_benchmarks([benchmark], tmp_path).folder.stat())
        save(index, folder)

    monkeypatch.setattr(LeakIndex, "save", save_late)
    found = read_benchmarks([benchmark], tmp_path)
    assert os.path.samestat(found.folder.stat(), others[0]) and list(found.folder.parent.iterdir()) == [found.folder]


def test_the_cache_is_cleaned_up_oldest_first_and_never_what_is_in_use_or_kept_by_a_run(tmp_path):
    file = write(tmp_path / "a.jsonl", CHATS)
    prepare(DataSection(train=(file,)), tokenizer())
    prepare(DataSection(train=(write(tmp_path / "b.jsonl", CHATS[:40]),)), tokenizer(), keep=tmp_path / "run")
    free = sorted(path for path in prepared_root().rglob("*.safetensors") if path.stat().st_nlink == 1)
    kept = {path for path in prepared_root().rglob("*.safetensors") if path.stat().st_nlink == 2}
    assert kept and clean_up(prepared_root(), (), most_bytes=0) == 0  # all was used just now
    for age, path in enumerate(free):
        os.utime(path, (age, age))
    assert clean_up(prepared_root(), {free[0]}, most_bytes=sum(path.stat().st_size for path in free) - 1) > 0
    assert free[0].exists() and not free[1].exists() and free[-1].exists()
    clean_up(prepared_root(), (), most_bytes=0)
    assert kept == set(prepared_root().rglob("*.safetensors"))


def test_the_app_prepares_in_the_background_and_loads_nothing_heavy_for_it(tmp_path):
    file = write(tmp_path / "a.jsonl", [*CHATS, {"reply": 1}])
    tokenizer_of("chatml").save_pretrained(tmp_path / "model")
    code = f"""
import json, sys
from pathlib import Path
from engine.data.prepare.client import Preparation
preparation = Preparation(Path({str(tmp_path / "model")!r}), {{"train": [{str(file)!r}]}})
assert preparation.wait(120) and preparation.problem is None, preparation.problem
(source,) = preparation.result.account["sources"]
assert source["trained"] + source["held_out"] == 300 and source["set_aside"] == 1 and source["rows"] == 301
assert sum(rows for _, rows in preparation.result.lengths) == 300
assert preparation.progress.done_bytes == preparation.progress.total_bytes == {file.stat().st_size}
wrong = Preparation(Path({str(tmp_path / "model")!r}), {{"train": ["/nowhere.jsonl"]}})
assert wrong.wait(120) and "there is no such file" in str(wrong.problem)
print(sorted({{"torch", "transformers", "numpy", "pydantic", "tokenizers", "pyarrow"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_preparation_that_is_killed_while_it_tells_is_a_problem(tmp_path, monkeypatch):
    half = 'import sys; sys.stdin.read(); print(\'{"kind": "prepared", "acc\', end=\'\')'
    monkeypatch.setattr(client, "module_command", lambda *_: [sys.executable, "-c", half])
    preparation = client.Preparation(tmp_path, {})
    assert preparation.wait(60) and "ended with status 0" in str(preparation.problem)
