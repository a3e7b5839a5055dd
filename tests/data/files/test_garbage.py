"""Generated garbage at every reader: rows, rows set aside with a reason, or one told problem; never anything else."""

from __future__ import annotations

import gzip
import unicodedata
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_files import ROWS, WRITERS, zstd

from engine.data.files import chunks_of, open_rows, read_chunk
from engine.data.rows import RejectedRow, Row
from engine.data.source import Format, Source
from profiles.problem import Problem

NAMES = ("a", "a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.md", "a.parquet", "a.arrow", "a.gz", "a.csv.zst")
# What the formats are made of, so that garbage comes as far as their parsers.
PARTS = (
    b'{"a": 1}', b'{"a": "', b'"}', b"[", b"]", b"{", b"}", b",", b":", b'"', b'""', b"\\", b"\\u00e9", b"\\ud83d",
    b"\n", b"\r\n", b"\r", b"\n\n", b"---\n", b"a,b\n", b"1\t2\n", b"x;y", b"'", b"null", b"NaN", b"\x00", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\xe9", "„ö".encode(), b"PAR1", b"ARROW1\x00\x00", b"\xff\xff\xff\xff", b"\x1f\x8b\x08\x00",
    b"\x28\xb5\x2f\xfd", b"BZh9", b"sep=;\n", b'{"data": [', b"  ",
)  # fmt: skip
composed = st.lists(st.sampled_from(PARTS), max_size=40).map(b"".join)
garbage = st.one_of(
    st.binary(max_size=400),
    composed,
    composed.map(lambda data: gzip.compress(data, mtime=0)),
    composed.map(lambda data: data.decode("latin-1").encode("utf-16")),
)
WHOLE = {name: write(ROWS[:40]) for name, write in WRITERS.items()}


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUI_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def check(source: Source) -> None:
    """Reading `source` in order and in chunks says the same, and only what a terminal can show."""
    try:
        with open_rows(source) as reader:
            rows = list(reader)
            notes = reader.notes()
            assert reader.position_bytes == reader.size_bytes
    except Problem as problem:
        assert is_safe(problem.where) and is_safe(problem.what) and problem.fix
        return
    assert all(map(is_safe, notes))
    assert rows
    # What is set aside names its own file's line, so only those of one file are in order together.
    for kind in (Row, RejectedRow):
        places = [(getattr(row, "path", ""), row.line) for row in rows if isinstance(row, kind)]
        assert len(places) == len(set(places)) and (source.path.is_dir() or places == sorted(places))
    for row in rows:
        assert isinstance(row, Row) or (is_safe(row.reason) and is_safe(row.excerpt) and row.reason)
    for target_bytes in (1, 50, 10**6):
        chunks = list(chunks_of(source, target_bytes))
        assert [row for chunk in chunks for row in read_chunk(source, chunk)] == rows
        assert [chunk.first_line for chunk in chunks] == sorted({chunk.first_line for chunk in chunks})


def is_safe(text: str) -> bool:
    """Without control characters, so that a terminal only shows it."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def written(folder: Path, name: str, data: bytes) -> Source:
    path = folder / name
    path.write_bytes(data)
    return Source(path)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(garbage, st.sampled_from(NAMES))
def test_any_bytes_under_any_name(tmp_path_factory, data, name):
    check(written(tmp_path_factory.mktemp("any"), name, data))


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    garbage,
    st.sampled_from(get_args(Format)),
    st.sampled_from(["auto", "utf-8", "utf-16", "cp1252", "gb18030"]),
    st.sampled_from(["auto", ",", "\t", "x"]),
    st.sampled_from(["", "data", "a.b"]),
)
def test_any_bytes_as_any_format(tmp_path_factory, data, format, encoding, delimiter, records):
    path = written(tmp_path_factory.mktemp("any"), "a", data).path
    check(Source(path, format=format, encoding=encoding, delimiter=delimiter, records=records))


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_files_with_bytes_changed_lost_or_added(tmp_path_factory, name, draw):
    data = bytearray(WHOLE[name])
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, max(0, len(data) - 1)))
        match draw.draw(st.sampled_from(["change", "lose", "add", "cut"])):
            case "change":
                data[at : at + 1] = draw.draw(st.binary(min_size=1, max_size=1))
            case "lose":
                del data[at : at + draw.draw(st.integers(1, 40))]
            case "add":
                data[at:at] = draw.draw(st.sampled_from(PARTS))
            case "cut":
                del data[at:]
    check(written(tmp_path_factory.mktemp("any"), name, bytes(data)))


@given(st.lists(st.tuples(st.sampled_from(NAMES), garbage), max_size=5))
def test_any_folder(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("any")
    for name, data in files:
        (folder / name).write_bytes(data)
    check(Source(folder))


def test_packed_garbage_of_every_kind(tmp_path):
    for number, pack in enumerate((gzip.compress, zstd)):
        for name, data in WHOLE.items():
            packed = bytearray(pack(data))
            packed[len(packed) // 2] ^= 0xFF
            check(written(tmp_path, f"{number}-{name}", bytes(packed)))
    assert pa.total_allocated_bytes() < 64 * 2**20


def test_a_rejected_row_of_a_later_stage_names_its_file_and_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{"a": 2}\n')
    (tmp_path / "b.jsonl").write_bytes(b'{"a": 3}\n{"a": 4}\n')
    source = Source(tmp_path)
    with open_rows(source) as reader:
        told = [reader.rejection(row, "is no good") for row in reader if isinstance(row, Row)]
    assert [(Path(row.path).name, row.line) for row in told] == [
        ("a.jsonl", 1), ("a.jsonl", 2), ("b.jsonl", 1), ("b.jsonl", 2),
    ]  # fmt: skip
    (chunk,) = chunks_of(source)
    rows = [row for row in read_chunk(source, chunk) if not isinstance(row, RejectedRow)]
    assert [chunk.rejection(source, row, "is no good") for row in rows] == told
