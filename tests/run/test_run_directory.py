"""Making, listing and finding runs, and what is said when the disk does not play along."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.run.creating import create_run
from engine.run.directory import find_run, list_runs
from engine.run.durable_files import write_atomically
from engine.run.launch import launch
from engine.run.liveness import liveness
from engine.run.summary import summaries
from engine.spec import RunSpec
from profiles.problem import Problem


def named(spec: RunSpec, name: str) -> RunSpec:
    return spec.model_copy(update={"name": name})


def test_runs_made_in_one_second_are_distinct_and_listed_newest_first(spec: RunSpec):
    made = [create_run(named(spec, name)) for name in ("a", "a", "b", "a")]
    assert len({run.path for run in made}) == 4
    assert [run.spec_name for run in made] == ["a", "a", "b", "a"]
    listed = [run for run in list_runs() if run.spec_name == "a"]
    assert listed == [made[3], made[1], made[0]] and len(list_runs()) == 4
    assert all(run.spec().name == run.spec_name for run in made)


def test_a_run_is_found_by_whatever_names_it(spec: RunSpec, monkeypatch: pytest.MonkeyPatch):
    assert list_runs() == []
    with pytest.raises(Problem, match=r"no such run[\s\S]*There are no runs yet"):
        find_run("latest")
    first, second = create_run(named(spec, "intake-notes")), create_run(named(spec, "tickets"))
    third = create_run(named(spec, "tickets"))
    monkeypatch.chdir(first.path)
    for text in (first.name, "intake-notes", "intake", "ake-no", str(first.path), ".", f"../{first.name}"):
        assert find_run(text) == first, text
    assert find_run("tickets") == find_run("latest") == third
    assert find_run(second.name) == second
    for text, what in {
        "ticket": "fits 2 runs",
        "intake-note5": r"no such run[\s\S]*Did you mean intake-notes",
        "": "no such run",
        "x\x1b[2J": r"x\\x1b",
        "/no/where": "there is no such folder",
        "..": "is not a run's folder",
    }.items():
        with pytest.raises(Problem, match=what):
            find_run(text)


def test_a_folder_without_a_spec_is_no_run_and_a_damaged_spec_spoils_no_list(spec: RunSpec, home: Path):
    run = create_run(spec)
    (home / "runs" / "20260101T000000Z-half").mkdir()
    (home / "runs" / "notes.txt").write_text("mine")
    run.spec_path.write_bytes(b"name = \xff")
    (summary,) = summaries()
    assert "spec.toml cannot be read" in summary.why or summary.state == "preparing"
    with pytest.raises(Problem, match="not UTF-8"):
        run.spec()
    assert liveness(run) == "never started"


def test_a_run_that_is_removed_while_runs_are_listed_hides_no_other(spec: RunSpec, monkeypatch: pytest.MonkeyPatch):
    kept, removed, newest = (create_run(spec) for _ in range(3))
    is_file = Path.is_file

    def removing(path: Path) -> bool:
        found = is_file(path)
        if path == removed.spec_path:
            shutil.rmtree(removed.path)
        return found

    monkeypatch.setattr(Path, "is_file", removing)
    assert list_runs() == [newest, kept] and not removed.path.exists()


@pytest.mark.parametrize("place", ["", "runs"])
def test_a_home_that_cannot_be_used_is_a_problem_with_a_way_out(spec: RunSpec, home: Path, place: str):
    (home / place).parent.mkdir(parents=True, exist_ok=True)
    (home / place).write_text("a file, as a stand-in for what cannot be written")
    with pytest.raises(Problem, match=r"a file stands where a folder is needed[\s\S]*set FINETUI_HOME"):
        launch(spec)
    with pytest.raises(Problem, match="a file stands where a folder is needed"):
        list_runs()
    (home / place).unlink()


def test_a_full_disk_leaves_no_half_made_run(spec: RunSpec, home: Path, tmp_path: Path):
    """No file may grow past 20 bytes in the child: so it is when the disk fills while a run is made."""
    spec_path = tmp_path / "given.toml"
    spec_path.write_text(spec.to_toml())
    code = """
import resource, sys
from pathlib import Path
from engine.run.creating import create_run
from engine.spec import load_spec
from profiles.problem import Problem
spec = load_spec(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
try:
    create_run(spec)
except Problem as problem:
    print(problem.what)
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(spec_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "a file would be larger than this process (ulimit -f) or this disk allows\n"
    assert list((home / "runs").iterdir()) == []


def test_a_write_is_whole_or_not_there(tmp_path: Path):
    path = tmp_path / "state.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
