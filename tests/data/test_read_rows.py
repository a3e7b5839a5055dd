"""Whatever bytes a file holds, its good rows come back exactly and everything else is told with its place."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data import read
from engine.data.read import read_rows
from engine.data.rows import RejectedRow, Row, refusal
from profiles.problem import Problem

GOOD = b'{"text": "hello"}\n'


def written(folder: Path, data: bytes, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def told(path: Path) -> Problem:
    with pytest.raises(Problem) as caught:
        list(read_rows(path))
    assert caught.value.where and caught.value.fix
    assert caught.value.where.isprintable() and caught.value.what.isprintable()
    return caught.value


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("rows.jsonl", GOOD)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("rows.jsonl"), io.BytesIO(b""))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"\n \n\t\r\n", "has no rows (3 blank lines)"),
        (b"\xef\xbb\xbf\n", "has no rows (1 blank line)"),
        (gzip.compress(GOOD), "is gzip-compressed"),
        (zipped(), "is a zip archive"),
        (tarred(), "is a tar archive"),
        (b"\x28\xb5\x2f\xfd\x00", "is zstd-compressed"),
        (b"PAR1\x15\x04", "is a Parquet file"),
        (b"ARROW1\x00\x00", "is an Arrow file"),
        (b"%PDF-1.7\n", "is a PDF"),
        (b"SQLite format 3\x00", "is an SQLite database"),
        (GOOD.decode().encode("utf-16"), "is UTF-16 text"),
        (GOOD.decode().encode("utf-16-le"), "looks like UTF-16 text without a byte-order mark"),
        (GOOD.decode().encode("utf-16-be"), "looks like UTF-16 text without a byte-order mark"),
        (b"\n <!DOCTYPE html><html><body>404</body></html>", "is a web page or XML, perhaps an error page"),
        (b'<?xml version="1.0"?><Error/>', "is a web page or XML, perhaps an error page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "is a Git LFS pointer"),
        (b'[{"text": "a"},\n {"text": "b"}]\n', "is one JSON array; JSONL has one object per line"),
        (b'[\n  {"text": "a"}\n]\n', "is one JSON array; JSONL has one object per line"),
        (b'{\n  "text": "a"\n}\n', "is JSON spread over several lines; JSONL has one object per line"),
        (b'{"text": "a"}\r{"text": "b"}\r', "ends its lines with CR alone"),
    ],
    # Compressed data hold the time they were made at, and a test's name must be the same in every process.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_format_is_told(tmp_path, data, what):
    assert told(written(tmp_path, data)).what.startswith(what)


def test_what_is_no_readable_file_is_told(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)  # since a socket's name may be no longer than 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    cases = {
        tmp_path / "absent": "there is no such file",
        tmp_path: "is a folder, not a regular file",
        tmp_path / "fifo": "is a FIFO, not a regular file",
        tmp_path / "socket": "is a socket, not a regular file",
        Path("/dev/null"): "is a device, not a regular file",
        tmp_path / "dangling": "is a link to nowhere, which is not there",
        tmp_path / "loop": "is a link that leads back to itself",
        tmp_path / "file" / "inside": "part of the path is a file, not a folder",
        tmp_path / ("x" * 300): "is longer than a path may be",
        tmp_path / "nul\0": "holds a NUL character, which no path can",
    }
    assert {path: told(path).what for path in cases} == cases


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(tmp_path):
    path = written(tmp_path, GOOD)
    path.chmod(0)
    assert told(path).what == "may not be read by you"


def test_a_name_with_control_characters_is_shown_quoted(tmp_path):
    assert told(written(tmp_path, b"", "a\n\x1b[31mb.jsonl")).where == f'"{tmp_path}/a\\n\\x1b[31mb.jsonl"'


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path):
    path = written(tmp_path, GOOD * 3)
    reader = read_rows(path)
    next(reader)
    with path.open("ab") as file:
        file.write(GOOD)
    with pytest.raises(Problem, match=r"changed while it was read \(from 54 to 72 bytes\)"):
        list(reader)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a",}', "has a comma too many before a closing bracket, at column 1"),
        (b'{"messages": [1,]}', "has a comma too many before a closing bracket, at column 1"),
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
        (b'{"n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested too deeply"),
    ],
)
def test_a_bad_row_is_set_aside_and_the_reading_goes_on(tmp_path, line, reason):
    path = written(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD)
    first, rejected, last = read_rows(path)
    assert (first, last) == (Row(1, {"text": "hello"}), Row(4, {"text": "hello"}))
    assert isinstance(rejected, RejectedRow)
    assert (rejected.path, rejected.line) == (str(path), 3)
    assert rejected.reason.startswith(reason)
    assert rejected.excerpt.isprintable() and rejected.reason.isprintable()


def test_a_row_of_zeros_does_not_make_the_file_utf16(tmp_path):
    zeros, good = read_rows(written(tmp_path, b"\x00" * 64 + b"\n" + GOOD))
    assert str(zeros) == "line 1 has the binary byte 0x00 at byte 1"
    assert good == Row(2, {"text": "hello"})


@pytest.mark.parametrize("end", [b'{"text": "a', b'{"text": ', b'{"te', b'{"text": "\xe2\x82', b'{"text": "a"'])
def test_a_half_written_last_line_is_told(tmp_path, end):
    first, rejected = read_rows(written(tmp_path, GOOD + end))
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
    assert {row.line: row.value["text"] for row in read_rows(written(tmp_path, data))} == texts


def test_a_line_that_is_too_long_is_passed_over_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(read, "_PIECE_BYTES", 64)
    fits = b'{"text": "' + b"a" * 987 + b'"}\n'
    path = written(tmp_path, fits + b'{"text": "' + b"b" * 5000 + b'"}\n' + GOOD + b"c" * 1001)
    whole, too_long, after, last = read_rows(path)
    assert (whole.line, len(whole.value["text"])) == (1, 987)
    assert str(too_long) == "line 2 has 5,013 bytes; a row may have 1,000"
    assert after == Row(3, {"text": "hello"})
    assert str(last) == "line 4 has 1,001 bytes; a row may have 1,000"


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
    # The first line is good, so that the file is taken for JSONL.
    data = GOOD + b"\n".join(encoded) + (b"\n" if ends_with_newline else b"")
    path = written(tmp_path_factory.mktemp("garbage"), data)
    with read_rows(path) as reader:
        rows = list(reader)
    good = {number: line for number, line in enumerate(lines, 2) if isinstance(line, dict)}
    bad = [number for number, line in enumerate(encoded, 2) if line.strip() and number not in good]
    assert {row.line: row.value for row in rows if isinstance(row, Row)} == {1: {"text": "hello"}, **good}
    assert [row.line for row in rows if isinstance(row, RejectedRow)] == bad
    assert reader.position_bytes == len(data)


@given(st.binary(max_size=600))
def test_any_bytes_are_rows_or_a_told_problem(tmp_path_factory, data):
    path = written(tmp_path_factory.mktemp("bytes"), data)
    try:
        rows = list(read_rows(path))
    except Problem as problem:
        assert is_safe(problem.what) and problem.fix
        return
    assert [row.line for row in rows] == sorted({row.line for row in rows})
    for row in rows:
        assert isinstance(row, Row) or (is_safe(row.reason) and is_safe(row.excerpt))


def is_safe(text: str) -> bool:
    """Without control characters, so that a terminal only shows it."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


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
