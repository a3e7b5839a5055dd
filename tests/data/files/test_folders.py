"""A folder is read as one source, and what is left out of it is said."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from sample_files import ROWS, as_csv, as_jsonl, as_parquet

from engine.data.files import chunks_of, open_rows, read_chunk
from engine.data.rows import RejectedRow, Row
from engine.data.source import Source
from profiles.problem import Problem


def put(folder: Path, **files: bytes) -> Source:
    """`files` by path: `__` stands for a slash and `_` for the dot in front of the ending."""
    for name, data in files.items():
        path = folder / (name.replace("__", "/").rpartition("_")[0] + "." + name.rpartition("_")[2])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Source(folder)


def test_files_are_read_in_order_and_numbered_on(tmp_path):
    source = put(
        tmp_path, b__2_jsonl=as_jsonl(ROWS[3:5]), a_json=as_jsonl(ROWS[:2]), b__1_jsonl=b"no\n" + as_jsonl(ROWS[2:3])
    )
    with open_rows(source) as reader:
        rows = list(reader)
    assert [row.value for row in rows if isinstance(row, Row)] == ROWS[:5]
    assert [row.line for row in rows if isinstance(row, Row)] == [1, 2, 4, 5, 6]
    (rejected,) = [row for row in rows if isinstance(row, RejectedRow)]
    assert (rejected.path, rejected.line) == (str(tmp_path / "b/1.jsonl"), 1)
    hashes = [(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest(), name) for name in READ]
    assert reader.sha256 == hashlib.sha256("".join(f"{each}  {name}\n" for each, name in hashes).encode()).hexdigest()
    for size in (1, 300, 10**6):
        assert [row for chunk in chunks_of(source, size) for row in read_chunk(source, chunk)] == rows
    assert len(list(chunks_of(source))) == 1


READ = ("a.json", "b/1.jsonl", "b/2.jsonl")


def test_what_is_beside_the_data_is_left_out_and_said(tmp_path):
    source = put(
        tmp_path,
        README_md=b"# About\n",
        LICENSE_txt=b"Do as you like.\n",
        notes_txt=b"Some notes.\n",
        image_png=b"\x89PNG\r\n\x1a\n",
        empty_parquet=b"",
        data__train_parquet=as_parquet(ROWS[:3]),
        data__test_parquet=as_parquet(ROWS[3:4]),
    )
    (tmp_path / ".git").mkdir()
    (tmp_path / ".hidden").write_bytes(b"x")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "data" / "linked.parquet").symlink_to("train.parquet")
    with open_rows(source) as reader:
        assert len(list(reader)) == 7
        assert reader.format == "parquet"
        assert reader.notes() == (
            "left out of the folder: 1 × .png files, which hold no rows",
            "left out of the folder: 1 × empty files",
            "left out of the folder: 2 × files beside the data, such as LICENSE.txt",
            "left out of the folder: 1 × hidden files",
            "left out of the folder: 1 × hidden folders",
            "left out of the folder: 1 × links to folders",
            "left out of the folder: 1 × text files, such as notes.txt",
            "some files look held out by their names, and are read with the others: data/test.parquet",
        )


def test_texts_are_a_document_each(tmp_path):
    source = put(tmp_path, a_txt=b"One.\n\nTwo.\n", b_md=b"---\nx: y\n---\n# Three\n", sub__c_txt=b"Four.\n")
    with open_rows(source) as reader:
        assert [row.value["text"] for row in reader if isinstance(row, Row)] == ["One.\n\nTwo.", "# Three", "Four."]
        assert reader.notes() == ("front matter in Markdown is left out (1 of 3 files)",)


def test_several_kinds_are_refused(tmp_path):
    with pytest.raises(Problem, match=r"several kinds: 1 × JSON \(a.jsonl\), 1 × CSV \(b.csv\)"):
        open_rows(put(tmp_path, a_jsonl=as_jsonl(ROWS[:2]), b_csv=as_csv(ROWS[:2])))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_or_folder_without_permission_is_told(tmp_path):
    source = put(tmp_path, a_jsonl=as_jsonl(ROWS[:2]), b__c_jsonl=as_jsonl(ROWS[:2]))
    for closed in (tmp_path / "a.jsonl", tmp_path / "b"):
        closed.chmod(0)
        try:
            with pytest.raises(Problem, match="may not be read by you"):
                open_rows(source)
        finally:
            closed.chmod(0o700)


def test_what_is_no_readable_place_is_told(tmp_path):
    put(tmp_path, file_jsonl=as_jsonl(ROWS[:1]))
    cases = {
        Path("/dev/null"): "is a device, not a regular file",
        tmp_path / "file.jsonl" / "inside": "part of the path is a file, not a folder",
        tmp_path / ("x" * 300): "is longer than a path may be",
        tmp_path / "nul\0": "holds a NUL character, which no path can",
    }
    for path, what in cases.items():
        with pytest.raises(Problem) as caught:
            open_rows(Source(path))
        assert caught.value.what == what and caught.value.fix


def test_a_name_with_control_characters_is_shown_quoted(tmp_path):
    path = tmp_path / "a\n\x1b[31mb.jsonl"
    path.write_bytes(b"")
    with pytest.raises(Problem) as caught:
        open_rows(Source(path))
    assert caught.value.where == f'"{tmp_path}/a\\n\\x1b[31mb.jsonl"'
