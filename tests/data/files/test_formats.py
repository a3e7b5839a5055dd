"""The same rows come out of every format, packing and encoding, read in order or in chunks of any size."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_files import ROWS, WRITERS

from engine.data.files import chunks_of, columnar_files, open_rows, read_chunk
from engine.data.rows import RejectedRow, Row
from engine.data.source import Source
from profiles.problem import Problem


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(columnar_files, "_BATCH_ROWS", 60)  # so that small tables have several batches, too


def written(folder: Path, name: str, data: bytes) -> Source:
    path = folder / name
    path.write_bytes(data)
    return Source(path)


def values(rows: list[Row | RejectedRow]) -> list[dict[str, object]]:
    return [row.value if isinstance(row, Row) else {"rejected": str(row)} for row in rows]


def in_chunks(source: Source, target_bytes: int) -> list[Row | RejectedRow]:
    return [row for chunk in chunks_of(source, target_bytes) for row in read_chunk(source, chunk)]


def read(source: Source) -> list[dict[str, object]]:
    """The rows in order, after a check that chunks of any size give the same ones."""
    with open_rows(source) as reader:
        rows = list(reader)
    for target_bytes in (1, 1000, 10**6):
        assert in_chunks(source, target_bytes) == rows
    return values(rows)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path, name):
    data = WRITERS[name](ROWS)
    source = written(tmp_path, name, data)
    assert read(source) == ROWS
    with open_rows(source) as reader:
        rows = list(reader)
        assert reader.sha256 == hashlib.sha256(data).hexdigest()
        assert reader.position_bytes == reader.size_bytes == len(data)
        assert reader.columns == ("question", "answer")
    assert len({row.line for row in rows}) == len(rows)
    chunks = chunks_of(source, 5000)
    found = list(chunks)
    assert len(found) > 1 and chunks.sha256 == reader.sha256 and chunks.position_bytes == len(data)
    assert [chunk.ordinal for chunk in found] == list(range(len(found)))
    assert len({chunk.key for chunk in found}) == len(found)


cell = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=30)


@given(
    st.lists(st.tuples(cell, cell.filter(str.strip)), min_size=1, max_size=20),
    st.sampled_from(["list.json", "spread.json", "one-after-another.json", "comma.csv", "a.parquet", "a.arrow"]),
)
def test_any_text_comes_back_as_it_was(tmp_path_factory, cells, name):
    rows = [{"question": first, "answer": second} for first, second in cells]
    assert read(written(tmp_path_factory.mktemp("any"), name, WRITERS[name](rows))) == rows


@given(st.lists(st.text(alphabet='",\n\\xé', max_size=12), min_size=1, max_size=30))
def test_any_table_is_the_same_in_chunks(tmp_path_factory, lines):
    source = written(tmp_path_factory.mktemp("any"), "a.csv", "\n".join(["name,text", *lines]).encode())
    try:
        read(source)
    except Problem:
        return


def test_a_stray_quote_costs_one_row(tmp_path):
    text = 'id,text\n1,a\n2,"b\n3,c\n4,"d ""e"""\n5,"f" g\n6,"h\ni"\n'
    source = written(tmp_path, "a.csv", text.encode())
    assert [str(row) if isinstance(row, RejectedRow) else row.value["text"] for row in open_rows(source)] == [
        "a",
        f"line 3 {QUOTE}",
        "c",
        'd "e"',
        f"line 6 {QUOTE}",
        "h\ni",
    ]


QUOTE = (
    "has a quote that is not closed where its field ends; inside a quoted field a quote is written twice, "
    "and a row may have 8,388,608 bytes"
)


def test_tables_without_names_with_odd_ones_and_of_odd_width(tmp_path):
    bare = written(tmp_path, "bare.csv", b"What is it?,a thing\nHow many are there?,7\n")
    assert read(bare) == [
        {"column 1": "What is it?", "column 2": "a thing"},
        {"column 1": "How many are there?", "column 2": "7"},
    ]
    ragged = written(tmp_path, "ragged.csv", b"a,b\n1,2\n3\n\n4,5,6\n")
    assert read(ragged) == [
        {"a": "1", "b": "2"},
        {"rejected": "line 3 has 1 field where there are 2 columns"},
        {"rejected": "line 5 has 3 fields where there are 2 columns"},
    ]
    index = written(tmp_path, "index.csv", b",text\n0,a\n1,b\n")
    assert read(index) == [{"column 1": "0", "text": "a"}, {"column 1": "1", "text": "b"}]
    with pytest.raises(Problem, match="has two columns called text"):
        open_rows(written(tmp_path, "twice.csv", b"text,text\na,b\n"))


def test_backslashed_quotes_and_other_backslashes(tmp_path):
    source = written(tmp_path, "a.csv", b'id,text\n1,"say \\"x\\" and \\alpha"\n')
    assert read(source) == [{"id": "1", "text": 'say "x" and \\alpha'}]


def test_json_faults_are_told_with_their_place_and_the_reading_goes_on(tmp_path):
    text = '[\n {"a": 1},\n {"a": None},\n "x",\n {"a":\n  2,},\n {"a": [}},\n {"a": 3}\n'
    assert values(list(open_rows(written(tmp_path, "a.json", text.encode())))) == [
        {"a": 1},
        {"rejected": "row 2 has Python's None at its character 7 (line 3 of the file); JSON writes null"},
        {"rejected": "row 3 is text; each row must be an object"},
        {"rejected": "row 4 has a comma too many before a closing bracket, at its character 10 (line 6 of the file)"},
        {"rejected": "row 5 is not JSON at its character 8 (line 7 of the file): expecting value"},
        {"a": 3},
        {"rejected": "row 7 is missing: the file ends before its list does; it may still be copying"},
    ]


def test_one_object_that_is_a_row_and_one_that_holds_rows(tmp_path):
    chat = {"messages": [{"role": "user", "content": "hi"}], "tools": [{"name": "f"}]}
    assert read(written(tmp_path, "row.json", json.dumps(chat, indent=1).encode())) == [chat]
    both = json.dumps({"train": [{"a": 1}], "test": [{"a": 2}]}).encode()
    with pytest.raises(Problem, match="several lists of objects: train, test"):
        open_rows(written(tmp_path, "both.json", both))
    assert read(Source(tmp_path / "both.json", records="test")) == [{"a": 2}]
    with pytest.raises(Problem, match=r"has no list at data\.rows"):
        open_rows(Source(tmp_path / "both.json", records="data.rows"))
    for table in ({"a": ["x", "y"], "b": ["z", "w"]}, {"a": {"0": "x"}, "b": {"0": "y"}}):
        with pytest.raises(Problem, match="column by column"):
            open_rows(written(tmp_path, "columns.json", json.dumps(table).encode()))


def test_text_is_cut_between_paragraphs_only(tmp_path):
    short = written(tmp_path, "short.txt", b"One.\r\nTwo.\r\n\r\nThree.\r\n")
    assert read(short) == [{"text": "One.\nTwo.\n\nThree."}]
    paragraphs = [f"Paragraph {number}. " + "All of it stays together.\n" * 40 for number in range(200)]
    long = written(tmp_path, "long.txt", "\n".join(paragraphs).encode())
    rows = read(long)
    assert len(rows) > 2
    assert [part for row in rows for part in str(row["text"]).split("\n\n")] == [each.strip() for each in paragraphs]


def test_markdown_without_its_front_matter(tmp_path):
    source = written(tmp_path, "page.md", b"---\ntitle: x\n---\n# Title\n\nWords.\n")
    with open_rows(source) as reader:
        assert [(row.line, row.value) for row in reader] == [(4, {"text": "# Title\n\nWords."})]
        assert reader.notes() == ("front matter in Markdown is left out",)


def test_values_of_tables_come_out_as_json_has_them(tmp_path):
    table = pa.table(
        {
            "text": ["a"],
            "bytes": [b"text in bytes"],
            "image": [b"\x89PNG\x00"],
            "when": [datetime(2026, 1, 2, 3, 4, tzinfo=UTC)],
            "day": [date(2026, 1, 2)],
            "price": [Decimal("1.50")],
            "score": [float("nan")],
            "label": pa.array(["x"]).dictionary_encode(),
            "chat": [[{"role": "user", "content": None}]],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with open_rows(Source(tmp_path / "a.parquet")) as reader:
        (row,) = reader
        assert isinstance(row, Row) and row.value == {
            "text": "a",
            "bytes": "text in bytes",
            "when": "2026-01-02T03:04:00+00:00",
            "day": "2026-01-02",
            "price": "1.50",
            "score": None,
            "label": "x",
            "chat": [{"role": "user", "content": None}],
        }
        assert reader.notes() == ("columns of bytes that hold no text are left out: image",)
        assert (reader.format, reader.unit) == ("parquet", "row")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_class_numbers_are_read_as_the_names_that_datasets_wrote(tmp_path, name):
    kind = {"names": ["fee", "loan"], "_type": "ClassLabel"}
    features = {"label": kind, "tags": {"feature": kind, "_type": "List"}, "text": {"_type": "Value"}}
    table = pa.table({"label": [1, 0, -1], "tags": [[0, 1], [], None], "text": ["a", "b", "c"]})
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = table.replace_schema_metadata(metadata)
    path = tmp_path / name
    write = pyarrow.parquet.write_table if path.suffix == ".parquet" else pyarrow.feather.write_feather
    write(table, path)
    with open_rows(Source(path)) as reader:
        rows = [row.value for row in reader]
        assert any("read as the names" in note for note in reader.notes())
    assert [(row["label"], row["tags"]) for row in rows] == [("loan", ["fee", "loan"]), ("fee", []), (None, None)]


def test_said_encodings_and_delimiters_are_followed(tmp_path):
    source = written(tmp_path, "a.csv", "name~text\na~grün\n".encode("cp1250"))
    assert read(Source(source.path, encoding="cp1250", delimiter="~")) == [{"name": "a", "text": "grün"}]
    for encoding, what in (("no-such", "none that Python knows"), ("rot13", "no encoding"), ("idna", "no encoding")):
        with pytest.raises(Problem, match=what):
            open_rows(Source(source.path, encoding=encoding))
    with pytest.raises(Problem, match="not one character"):
        open_rows(Source(source.path, delimiter="::"))


def test_a_few_bad_bytes_reject_their_rows_and_many_make_a_guess(tmp_path):
    few = written(tmp_path, "few.csv", b"name,text\na,b\nc,caf\xe9\n")
    assert "line 3 is not UTF-8: byte 0xe9" in str(values(list(open_rows(few)))[1])
    many = written(tmp_path, "many.csv", "name,text\nzażółć,gęślą jaźń\n".encode("cp1250") * 3)
    with open_rows(many) as reader:
        assert reader.notes()[0].startswith("the file is not UTF-8; read as cp1250, which is a guess")
