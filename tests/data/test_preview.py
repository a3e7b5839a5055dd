"""A look at a file: counts that add up, in a light process."""

from __future__ import annotations

import json
import subprocess
import sys

from engine.data.contents import Conversation
from engine.data.preview import preview, spoken
from engine.data.source import Source
from profiles.problem import Problem


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_a_whole_file_is_counted_measured_and_shown(tmp_path):
    rows = [chat("q" * size, "a") for size in range(1, 101)]
    rows += ["{", "", {"reply": 1}, {"text": "t" * 9, "id": 4}, rows[0]]
    found = preview(write(tmp_path / "rows.jsonl", rows))
    assert (found.rows, found.usable_rows, found.reject_count, found.complete) == (104, 102, 2, True)
    assert found.bytes == found.read_bytes == (tmp_path / "rows.jsonl").stat().st_size
    assert (found.shape, dict(found.shapes)) == ("messages", {"messages": 101, "text": 1})
    assert [row.line for row in found.rejected] == [101, 103]
    assert [sample.line for sample in found.samples] == [*range(1, 101), 104, 105]
    assert isinstance(found.samples[0].content, Conversation)
    lengths = found.characters
    assert (lengths.median, lengths.p90, lengths.p99, lengths.maximum) == (50, 91, 100, 101)
    assert lengths.mean == (sum(range(2, 102)) + 9 + 2) / 102
    assert set(found.notes) == {
        "blank lines passed over: 1",
        "rows of different shapes: messages 101; text 1",
        "rows that are exact copies of another: 1",
        "fields that change nothing: id",
    }
    assert (found.format, found.kind, found.unclear, found.unit) == ("jsonl", "conversation", None, "line")
    assert found.reading is not None and (found.reading.shape, found.reading.columns) == (
        "messages",
        {"messages": "messages"},
    )
    written = json.loads(json.dumps(found.as_dict()))
    assert written["rejected"][1]["reason"].startswith("has no fields")
    assert len(written["samples"]) == 5
    assert [(each.name, each.kind, round(103 * each.filled_share)) for each in found.columns] == [
        ("messages", "list", 101),
        ("reply", "number", 1),
        ("text", "text", 1),
        ("id", "number", 1),
    ]


def test_what_is_allowed_but_seldom_meant_is_counted(tmp_path):
    user, answer = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
    system = {"role": "system", "content": "S"}
    rows = [{"messages": turns} for turns in ([user, user, answer], [user, system, answer], [user, answer, user])]
    path = write(tmp_path / "rows.jsonl", ["\ufeff" + json.dumps(rows[0]), *rows[1:], {"text": "x" * 2**21}])
    assert set(preview(path).notes) == {
        "the file begins with a UTF-8 byte-order mark, which is passed over",
        "two turns in a row by the same side: 1 rows",
        "a system message that is not the first: 1 rows",
        "nothing is learnt from what follows the last answer: 1 rows",
        "line 4 has 2,097,152 characters and will be cut or split",
        "rows of different shapes: messages 3; text 1",
    }


def test_a_large_file_is_looked_at_in_part(tmp_path):
    path = write(tmp_path / "rows.jsonl", [chat("q" * 100, "a")] * 1000)
    found = preview(path, limit_bytes=path.stat().st_size // 10)
    assert (found.rows, found.complete, found.estimated_rows) == (100, False, 1000)


def test_it_tells_what_a_run_would_stop_with(tmp_path):
    found = preview(write(tmp_path / "rows.jsonl", [chat("q", "a")] * 98 + ["{"] * 2))
    assert found.refusal(0.02) is None
    problem = found.refusal(0.01)
    assert problem is not None and "2 of 100 rows (2.0%) cannot be used" in problem.what


def test_what_goes_through_the_model_at_once_is_measured_apart(tmp_path):
    rows = [{"prompt": "p" * 10, "chosen": "c" * 20, "rejected": "r" * 5}] * 3
    found = preview(write(tmp_path / "rows.jsonl", rows))
    assert (found.characters.mean, found.sequences.maximum, found.sequences.mean) == (35, 30, 22.5)
    assert found.sequences_per_row == 2
    assert spoken(found.samples[0].content) == [("user", "p" * 10), ("chosen", "c" * 20), ("rejected", "r" * 5)]


def test_other_readings_are_suggested_and_can_be_taken_up(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"text": f"t{n}", "label": "a"} for n in range(9)])
    found = preview(path)
    assert found.kind == "labelled" and "classes: a 9" in found.notes
    (other,) = found.suggestions
    assert "plain text" in other.words and preview(other.source).kind == "text"


def test_columns_that_nothing_tells_apart_are_shown_and_asked_for(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"question": f"q{n}", "answer_a": "a", "answer_b": "b"} for n in range(9)])
    found = preview(path)
    assert found.reading is None and found.usable_rows == 0
    assert [column.name for column in found.columns] == ["question", "answer_a", "answer_b"]
    assert found.unclear is not None and found.refusal(0.5) == found.unclear
    assert [suggestion.source.columns for suggestion in found.suggestions] == [
        {"answer": "answer_a"},
        {"answer": "answer_b"},
    ]
    assert preview(found.suggestions[1].source).samples[0].content.messages[-1].content == "b"


def test_a_template_cannot_fill_the_memory(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"a": "b"}] * 9)
    for huge in ("{{ a|center(99999999999) }}", "{{ 'a'|center(99999999999) }}"):
        try:
            found = preview(Source(path, answer_template=huge))
        except Problem as problem:
            assert "answer_template" in problem.where
        else:
            assert found.reject_count == 9 and "write more than" in found.rejected[0].reason
    found = preview(Source(path, answer_template="{{ a }}!"))
    assert found.kind == "text" and found.samples[0].content.text == "b!"


def test_it_imports_none_of_the_heavy_libraries():
    code = "import sys, engine.data.preview; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
