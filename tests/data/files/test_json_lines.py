"""Whatever bytes a file of lines holds, its good rows come back exactly and everything else is told with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.files import chunks_of, limits, open_rows, read_chunk
from engine.data.rows import RejectedRow, Row, refusal
from engine.data.source import Source
from profiles.problem import Problem

GOOD = b'{"text": "hello"}\n'


def written(folder: Path, data: bytes, name: str = "rows.jsonl") -> Source:
    path = folder / name
    path.write_bytes(data)
    return Source(path)


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path):
    source = written(tmp_path, GOOD * 3)
    reader = open_rows(source)
    next(reader)
    with source.path.open("ab") as file:
        file.write(GOOD)
    with pytest.raises(Problem, match=r"changed while it was read \(from 54 to 72 bytes\)"):
        list(reader)


def test_a_chunk_whose_bytes_changed_is_told(tmp_path):
    source = written(tmp_path, GOOD * 3)
    (chunk,) = chunks_of(source)
    source.path.write_bytes(GOOD.upper() * 3)
    with pytest.raises(Problem, match="changed while it was read"):
        list(read_chunk(source, chunk))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a",}', "has a comma too many before a closing bracket, at column 13"),
        (b'{"messages": [1,]}', "has a comma too many before a closing bracket, at column 16"),
        (b"{'text': 'a'}", "has a single quote at column 2; JSON wants double quotes"),
        (b'{"text": None}', "has Python's None at column 10; JSON writes null"),
        (b'{"text": True}', "has Python's True at column 10; JSON writes true"),
        (b'{"text": "a", "text": "b"}', "has `text` twice"),
        (b'{"text": "a", "meta": {"k": 1, "k": 2}}', "has `k` twice"),
        (b'{"text": "caf\xe9"}', "is not UTF-8: byte 0xe9 at byte 14 (in Windows-1252 it would be é)"),
        (b'{"text": "a\x00b"}', "has the binary byte 0x00 at byte 12"),
        (b'{"text": "\\ud83d"}', "has half an emoji: the lone surrogate \\ud83d"),
        (b'{"text": "\\uDe00 x"}', "has half an emoji: the lone surrogate \\ude00"),
        (b'{"text": NaN}', "holds NaN, which JSON does not have"),
        (b'{"text": "a", "score": -Infinity}', "holds -Infinity, which JSON does not have"),
        (b'{"text": "a", "score": 1e999}', "holds the number 1e999, which is too large"),
        (b'"just text"', "is text; each line must be an object"),
        (b"[1, 2]", "is a list; each line must be an object"),
        (b"null", "is null; each line must be an object"),
        (b"12", "is a number; each line must be an object"),
        (b'{"text": "a"} {"text": "b"}', "goes on after its object ends, at column 15"),
        (b'{"text": "a\tb"}', "has a raw control character (\\t) inside text, at column 12"),
        (b'{"text": "a', "is cut off in a value that begins at column 10"),
        (b'{"text": ', "is cut off in a value that begins at column"),
        (b"text,label", "is not JSON: it begins with t"),
        (b'{"text" "a"}', "is not JSON at column 9: expecting ':' delimiter"),
        (b'{"text": "\\q"}', "is not JSON at column 11: invalid \\escape"),
        (b'{"n": ' + b"9" * 5000 + b"}", "has a number of more than 4,300 digits"),
        (b'{"n": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "is nested more than 100 deep"),
        (b'{"n": ' + b'{"n":' * 10_000, "is nested more than 100 deep"),
    ],
)
def test_a_bad_row_is_set_aside_and_the_reading_goes_on(tmp_path, line, reason):
    source = written(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD)
    first, rejected, last = open_rows(source)
    assert (first, last) == (Row(1, {"text": "hello"}), Row(4, {"text": "hello"}))
    assert isinstance(rejected, RejectedRow)
    assert (rejected.path, rejected.line) == (str(source.path), 3)
    assert rejected.reason.startswith(reason)
    assert rejected.excerpt.isprintable() and rejected.reason.isprintable()


def test_a_row_of_zeros_does_not_make_the_file_utf16(tmp_path):
    zeros, good = open_rows(written(tmp_path, b"\x00" * 64 + b"\n" + GOOD))
    assert str(zeros) == "line 1 has the binary byte 0x00 at byte 1"
    assert good == Row(2, {"text": "hello"})


@pytest.mark.parametrize("end", [b'{"text": "a', b'{"text": ', b'{"te', b'{"text": "\xe2\x82', b'{"text": "a"'])
def test_a_half_written_last_line_is_told(tmp_path, end):
    first, rejected = open_rows(written(tmp_path, GOOD + end))
    assert first == Row(1, {"text": "hello"})
    assert str(rejected) == "line 2 is cut off; the file may still be copying"


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"\xef\xbb\xbf" + GOOD, {1: "hello"}),
        (GOOD.strip(), {1: "hello"}),
        (GOOD.replace(b"\n", b"\r\n") * 2, {1: "hello", 2: "hello"}),
        ('{"text": "a\u2028b\x85c"}\n'.encode() + GOOD, {1: "a\u2028b\x85c", 2: "hello"}),
        (b'{"text": "\\ud83d\\ude00 \\u0000"}\n', {1: "😀 \x00"}),
        (b'{"text": 12345678901234567890123}\n', {1: 12345678901234567890123}),
    ],
)
def test_what_is_unusual_but_right_is_read(tmp_path, data, texts):
    assert {row.line: row.value["text"] for row in open_rows(written(tmp_path, data))} == texts


def test_what_was_passed_over_is_noted(tmp_path):
    with open_rows(written(tmp_path, b"\xef\xbb\xbf" + GOOD + b"\n\r\n" + GOOD)) as reader:
        assert [row.line for row in reader] == [1, 4]
        assert reader.notes() == (
            "the file begins with a UTF-8 byte-order mark, which is passed over",
            "blank lines passed over: 2",
        )
        assert (reader.columns, reader.format, reader.unit) == (("text",), "jsonl", "line")


def test_a_line_that_is_too_long_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_ROW_BYTES", 1000)
    fits = b'{"text": "' + b"a" * 987 + b'"}\n'
    too_long = b'{"text": "' + b"b" * 300_000 + b'"}\n'
    source = written(tmp_path, fits + too_long + GOOD + b"c" * 1001)
    expected = [
        "line 2 has 300,013 bytes; a row may have 1,000",
        "line 4 has 1,001 bytes; a row may have 1,000",
    ]
    for rows in (list(open_rows(source)), *(read_in_chunks(source, size) for size in (1, 500, 5000, 10**6))):
        assert [str(row) for row in rows if isinstance(row, RejectedRow)] == expected
        assert [(row.line, len(row.value["text"])) for row in rows if isinstance(row, Row)] == [(1, 987), (3, 5)]
        assert all(len(row.excerpt) <= 80 for row in rows if isinstance(row, RejectedRow))


def read_in_chunks(source: Source, target_bytes: int) -> list[Row | RejectedRow]:
    return [row for chunk in chunks_of(source, target_bytes) for row in read_chunk(source, chunk)]


def test_only_the_last_chunk_changes_when_a_file_grows(tmp_path):
    source = written(tmp_path, GOOD * 1000)
    before = list(chunks_of(source, 4000))
    with source.path.open("ab") as file:
        file.write(GOOD * 10)
    after = list(chunks_of(source, 4000))
    assert len(before) > 3 and before[:-1] == after[: len(before) - 1]
    assert before[-1].key != after[len(before) - 1].key
    assert sum(chunk.size_bytes for chunk in after) == source.path.stat().st_size


def test_the_position_is_where_the_rows_have_come_to(tmp_path):
    source = written(tmp_path, b"\xef\xbb\xbf" + GOOD * 3)
    with open_rows(source) as reader:
        assert [reader.position_bytes for _ in reader] == [3 + len(GOOD), 3 + 2 * len(GOOD), 3 + 3 * len(GOOD)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
good_lines = st.dictionaries(st.text(min_size=1), json_values, min_size=1, max_size=4)
# Bytes no line can be made of by luck: without braces there is no object.
bad_lines = st.binary(min_size=1, max_size=80).map(lambda data: data.replace(b"\n", b"").replace(b"{", b"") + b"}")
blank_lines = st.sampled_from([b"", b" ", b"\t \r"])


@given(st.lists(good_lines | bad_lines | blank_lines, min_size=1, max_size=12), st.booleans())
def test_good_rows_survive_any_garbage_around_them(tmp_path_factory, lines, ends_with_newline):
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    # The first line is good, so that the file is taken for JSONL; its encoding is said, so that none is guessed.
    data = GOOD + b"\n".join(encoded) + (b"\n" if ends_with_newline else b"")
    path = written(tmp_path_factory.mktemp("garbage"), data).path
    with open_rows(Source(path, encoding="utf-8")) as reader:
        rows = list(reader)
    good = {number: line for number, line in enumerate(lines, 2) if isinstance(line, dict)}
    bad = [number for number, line in enumerate(encoded, 2) if line.strip() and number not in good]
    assert {row.line: row.value for row in rows if isinstance(row, Row)} == {1: {"text": "hello"}, **good}
    assert [row.line for row in rows if isinstance(row, RejectedRow)] == bad
    assert reader.position_bytes == len(data)
    assert rows == read_in_chunks(Source(path, encoding="utf-8"), 40)


def rejects(*reasons: str) -> list[RejectedRow]:
    return [RejectedRow("rows.jsonl", line, reason, "") for line, reason in enumerate(reasons, 1)]


def test_more_rejected_rows_than_allowed_are_refused_with_five_reasons():
    rejected = rejects(*(["is text"] * 3 + [f"has fault {number}" for number in range(9)]))
    assert refusal(rejected, 12, 1200, 0.01) is None
    problem = refusal(rejected, 12, 1000, 0.01)
    assert problem is not None
    assert problem.what == (
        "12 of 1,000 rows (1.2%) cannot be used, more than the 1.0% allowed: line 1 is text; "
        "line 4 has fault 0; line 5 has fault 1; line 6 has fault 2; line 7 has fault 3"
    )
    assert "data.max_rejected_share" in problem.fix


def test_a_file_without_any_usable_row_is_refused_whatever_is_allowed():
    problem = refusal(rejects("is text", "is text"), 2, 2, 0.99)
    assert problem is not None
    assert problem.what == "none of its 2 rows can be used: line 1 is text"
