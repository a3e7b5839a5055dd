"""The report of small sources in which everything was planted."""

import json
import random

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from engine.data.quality.findings import QualityReport
from engine.data.quality.options import ReportOptions
from engine.data.quality.report import report
from engine.data.source import Source
from engine.data.tokens.reference import describe
from engine.data.tokens.text_tokenizer import TextTokenizer
from profiles.problem import Problem

WORDS = [
    f"{start}{end}" for start in ("ba", "de", "fi", "ko", "lu", "ma") for end in ("ran", "sel", "tin", "mor", "vud")
]


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))


@pytest.fixture
def tiny_tokenizer():
    """One token a word."""
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "</s>": 1}, "<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    fast.chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    return TextTokenizer("tiny", describe(fast))


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path)


def pairs(count, seed=0, words=30):
    chance = random.Random(seed)
    return [
        {"prompt": " ".join(chance.choices(WORDS, k=words)), "completion": " ".join(chance.choices(WORDS, k=words))}
        for _ in range(count)
    ]


def test_everything_planted_is_counted_and_placed(tmp_path):
    rows = pairs(40)
    turns = {"user": rows[3]["prompt"], "assistant": rows[3]["completion"]}
    # An exact copy in another shape, as a preparation counts it too.
    rows[10] = {"messages": [{"role": role, "content": text} for role, text in turns.items()]}
    rows[20] = {"prompt": rows[5]["prompt"], "completion": rows[5]["completion"] + " end"}
    rows[30] = {"prompt": "Write to anna@mail.com about " + rows[30]["prompt"], "completion": rows[30]["completion"]}
    rows[35] = {"prompt": rows[35]["prompt"], "completion": " "}
    for at in (6, 7, 8, 9, 11):
        rows[at]["completion"] = "I cannot say."
    train = written(tmp_path / "train.jsonl", rows)
    held_out = written(tmp_path / "held.jsonl", [rows[1], *pairs(5, seed=1)])
    bench = written(tmp_path / "bench.jsonl", [{"question": rows[2]["prompt"], "answer": "x"}, *pairs(3, seed=2)])

    found = report([train], held_out, [bench.path])

    assert [(each.split, each.rows, each.examined, each.unusable) for each in found.sources] == [
        ("train", 40, 39, 1),
        ("held_out", 6, 6, 0),
    ]
    assert (found.exact.within, found.exact.across, found.near.within, found.near.across) == (1, 1, 1, 0)
    assert [(pair.row.line, pair.of.line) for pair in found.exact.pairs + found.near.pairs] == [(11, 4), (21, 6)]
    assert found.exact.across_pairs[0].row.source == str(held_out.path)
    assert found.empty_rows == 1
    assert [(each.text, each.rows) for each in found.repeated_answers] == [("I cannot say.", 5)]
    assert [(each.kind, each.findings, each.places[0].line) for each in found.personal] == [("email", 1, 31)]
    assert "anna@" not in json.dumps([each.places[0].excerpt for each in found.personal])
    leak = found.leaks[0]
    assert (leak.rows, leak.leaked_rows, leak.training_rows, leak.held_out_rows) == (4, 1, 1, 0)
    assert (leak.pairs[0].row.line, leak.pairs[0].of.line) == (3, 1)
    assert sum(found.lengths.counts) == found.examined == 45
    keys = [each.key for each in found.findings]
    assert keys == ["leak", "across", "exact_duplicates", "near_duplicates", "empty", "repeated_answer", "personal"]
    assert all(each.what and each.fix and 0 < each.share <= 1 for each in found.findings)


def test_several_processes_say_the_same_as_one_and_json_brings_all_of_it_back(tmp_path):
    rows = [{**row, "region": "north" if at % 10 else "south"} for at, row in enumerate(pairs(3_000, words=60))]
    train = written(tmp_path / "train.jsonl", rows + rows[:50])
    assert train.path.stat().st_size > 2 * 2**20  # more than one chunk

    one = report([train], options=ReportOptions(attributes=("region",), workers=1))
    several = report([train], options=ReportOptions(attributes=("region",), workers=2))
    told = several.as_dict()

    assert {**one.as_dict(), "seconds": 0} == {**told, "seconds": 0}
    assert QualityReport.from_dict(json.loads(json.dumps(told))) == several
    assert several.exact.within == 50
    assert several.attributes[0].values == (("north", 2745), ("south", 305))
    assert not list((tmp_path / "home" / "cache" / "quality").iterdir())


def test_classes_their_balance_and_text_that_is_divided_rather_than_cut(tmp_path):
    labelled = [{"text": f"{row['prompt']} {at}", "label": "good" if at else "bad"} for at, row in enumerate(pairs(30))]
    found = report([written(tmp_path / "labelled.jsonl", labelled)])

    assert found.labels.values == (("good", 29), ("bad", 1))
    assert [each.key for each in found.findings] == ["classes"]


def test_lengths_in_tokens_say_what_is_cut_and_a_column_that_is_not_there_is_told(tmp_path, tiny_tokenizer):
    rows = pairs(30, words=10)
    rows[7]["completion"] = " ".join(WORDS * 3)
    options = ReportOptions(sequence_length=64, attributes=("region",), workers=1)

    found = report([written(tmp_path / "train.jsonl", rows)], options=options, tokenizer=tiny_tokenizer)

    cut = next(each for each in found.lengths.cuts if each.length == 64)
    assert found.lengths.unit == "tokens" and (cut.rows, found.lengths.longest[0].line) == (1, 8)
    assert 0 < cut.lost_share < 0.2
    (finding,) = [each for each in found.findings if each.key == "cut"]
    assert finding.setting == ("data.sequence_length", "256")
    assert "no row has a column `region`" in found.notes


def test_a_sample_says_that_it_is_one_and_progress_ends(tmp_path):
    told = []
    train = written(tmp_path / "train.jsonl", pairs(2_000))

    found = report([train], options=ReportOptions(rows=100), progress=told.append)

    assert (found.rows, found.complete) == (100, False)
    assert found.notes[0] == "only the first 100 rows were looked at"
    assert told[-1].done_bytes == told[-1].total_bytes and told[-1].rows == 100


def test_rows_of_a_folder_are_told_by_file_and_line(tmp_path):
    (tmp_path / "notes").mkdir()
    row = pairs(1)[0]
    for name in ("a", "b"):
        written(tmp_path / "notes" / f"{name}.jsonl", [*pairs(2, seed=name), row])

    found = report([Source(tmp_path / "notes")])

    (pair,) = found.exact.pairs
    assert (pair.row.source, pair.row.line) == (str(tmp_path / "notes" / "b.jsonl"), 3)
    assert (pair.of.source, pair.of.line) == (str(tmp_path / "notes" / "a.jsonl"), 3)


def test_sources_that_cannot_be_read_are_problems_and_unusable_ones_are_counted(tmp_path):
    with pytest.raises(Problem):
        report([Source(tmp_path / "none.jsonl")])
    rows = [{"prompt": "a", "completion": ""}] * 3 + pairs(1)
    found = report([written(tmp_path / "bad.jsonl", rows)])

    assert (found.rows, found.examined, found.empty_rows, found.unusable.rows) == (4, 1, 3, 3)


def test_languages_are_told_and_stray_ones_placed(tmp_path):
    english = "The committee will meet again next week to discuss the new rules for the public library in town"
    german = "Der Ausschuss trifft sich nächste Woche erneut, um die neuen Regeln der Bibliothek zu besprechen"
    rows = [{"text": f"{english} {number}."} for number in range(80)] + [{"text": german}]

    found = report([written(tmp_path / "texts.jsonl", rows)], options=ReportOptions(near_duplicates=False))

    assert found.languages.values == (("English", 80), ("German", 1))
    (finding,) = [each for each in found.findings if each.key == "languages"]
    assert finding.places[0].line == 81
