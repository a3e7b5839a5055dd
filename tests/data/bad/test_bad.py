"""For every malformed input a person sees what the table says: no traceback, no hang, no unbounded memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import cases
import make_bad
import pytest

from engine.data.files import chunks_of, open_rows, read_chunk
from engine.data.source import Source
from profiles.problem import Problem, printable

NAMES = cases.NAMES
# Far above what a reader takes (it stays under 64 MiB) and far below what the large inputs would.
_MEMORY_BYTES = 400 * 2**20


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))


def test_the_table_has_every_input_and_more_than_sixty():
    assert list(make_bad.kept()) == [printable(name) for name in NAMES]
    assert len(NAMES) >= 60


@pytest.mark.parametrize("name", NAMES, ids=printable)
def test_a_person_sees_what_the_table_says(tmp_path, name):
    if name in cases.NEEDS_A_USER and os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = cases.make(tmp_path, name)
    said = make_bad.seen(path).replace(str(tmp_path), "FOLDER")
    assert said == make_bad.kept()[printable(name)]
    assert said.isprintable()
    if name in cases.NEEDS_A_USER:
        path.chmod(0o700)


@pytest.mark.parametrize("name", NAMES, ids=printable)
def test_chunks_show_the_same(tmp_path, name):
    source = Source(cases.make(tmp_path, name))
    try:
        rows = list(open_rows(source))
    except Problem as problem:
        if "has no rows" in problem.what:  # which of chunks is known only once they are read
            assert not [row for chunk in chunks_of(source) for row in read_chunk(source, chunk)]
            return
        with pytest.raises(Problem, match=problem.what[:20].replace("(", r"\(")):
            [row for chunk in chunks_of(source) for row in read_chunk(source, chunk)]
        return
    assert [row for chunk in chunks_of(source) for row in read_chunk(source, chunk)] == rows


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("bomb", "long", "deep"))])
def test_memory_is_bounded(tmp_path, name):
    """The large inputs, each in a process that may not have more than so much."""
    path = cases.make(tmp_path, name)
    command = [sys.executable, str(Path(make_bad.__file__)), "--seen", str(path)]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES)),
    )
    assert done.stdout.strip() == make_bad.kept()[name], done.stderr
