"""What is piped in becomes a file that only its owner may read, named after its contents."""

from __future__ import annotations

import gzip
import io
import os
import stat
from pathlib import Path

import pytest
from sample_files import ROWS, as_csv, as_jsonl, as_parquet

from engine.data.files import open_rows, spool_stdin
from engine.data.source import Source
from profiles.problem import Problem


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    return tmp_path / "cache" / "stdin"


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (as_jsonl(ROWS), ".jsonl"),
        (gzip.compress(as_csv(ROWS, ";"), mtime=0), ".csv.gz"),
        (as_parquet(ROWS), ".parquet"),
    ],
)
def test_piped_data_are_kept_and_read(home, data, suffix):
    path = spool_stdin(io.BytesIO(data))
    assert path.read_bytes() == data and path.name.endswith(suffix)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with open_rows(Source(path)) as reader:
        assert [row.value for row in reader] == ROWS
        assert path.name.startswith(reader.sha256[:32])
    assert spool_stdin(io.BytesIO(data)) == path
    assert list(home.iterdir()) == [path]


def test_nothing_and_a_keyboard_are_told(home):
    with pytest.raises(Problem, match="standard input: is empty"):
        spool_stdin(io.BytesIO())
    assert list(home.iterdir()) == []
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as stream, pytest.raises(Problem, match="is the keyboard"):
        spool_stdin(stream)
    os.close(controller)


def test_a_pipe_without_end_stops_before_the_disk_is_full(home, monkeypatch):
    from engine.data.files import stdin

    monkeypatch.setattr(stdin, "_CHECKED_BYTES", 2**20)
    monkeypatch.setattr(stdin, "_LEFT_FREE_BYTES", 2**60)
    with Path("/dev/zero").open("rb") as endless, pytest.raises(Problem, match="less than 1 GiB would be left free"):
        spool_stdin(endless)
    assert list(home.iterdir()) == []
