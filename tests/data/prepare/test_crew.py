"""The crew: everything in order, faults told, processes that die replaced once, and none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine.data.crew import CrewFault, run_crew
from profiles.problem import Problem

TASKS = "crew_tasks:faulty"


@pytest.fixture(autouse=True)
def tasks_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_whoever_made_them(workers):
    results = list(run_crew("crew_tasks:squares", 5, range(40), workers))
    assert [value for _, value in results] == [number * number + 5 for number in range(40)]
    processes = {process for process, _ in results}
    assert len(processes) <= max(1, workers) and (os.getpid() in processes) == (workers == 0)
    assert list(run_crew("crew_tasks:squares", 5, [], workers)) == []


def test_items_are_drawn_only_a_few_ahead_of_the_results():
    drawn = []
    results = run_crew("crew_tasks:squares", 0, (drawn.append(number) or number for number in range(100)), 2)
    next(results)
    assert len(drawn) <= 6
    results.close()


def test_its_processes_import_no_more_than_the_task_does():
    assert list(run_crew(TASKS, None, ["modules"], 1)) == [[]]


def test_problems_and_bugs_come_through():
    results = run_crew(TASKS, None, [1, "problem", 2], 2)
    assert next(results) == 1
    with pytest.raises(Problem, match="here: is wrong"):
        next(results)
    with pytest.raises(CrewFault, match="ValueError"):
        list(run_crew(TASKS, None, ["fault"], 1))


def test_a_process_that_dies_is_replaced_once(tmp_path):
    assert list(run_crew(TASKS, str(tmp_path / "mark"), [1, "die once", 2], 2)) == [1, "die once", 2]
    with pytest.raises(Problem, match=r"a\.jsonl: a process that works on it was killed.*my last words"):
        list(run_crew(TASKS, None, [1, "die", 2], 2, doing="a.jsonl"))


def test_it_works_where_less_memory_is_allowed_than_it_would_allow_itself(tmp_path):
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from engine.data.crew import run_crew
print(list(run_crew({TASKS!r}, None, [1, 2], 1)))
print(next(run_crew("crew_tasks:missing", None, [1], 1)))
"""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[1, 2]\n" and "has no attribute 'missing'" in done.stderr


def test_closing_early_ends_the_processes(tmp_path):
    before = set(psutil.Process().children())  # other tests', which may end later
    results = run_crew(TASKS, str(tmp_path / "pid"), [1, "sleep", 2], 2)
    assert next(results) == 1
    process = psutil.Process(_written(tmp_path / "pid"))
    results.close()
    assert not process.is_running()
    assert set(psutil.Process().children()) <= before


def test_processes_end_in_the_middle_of_an_item_when_their_caller_is_killed(tmp_path):
    code = f"from engine.data.crew import run_crew; list(run_crew({TASKS!r}, {str(tmp_path / 'pid')!r}, ['sleep'], 1))"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    caller = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    process = psutil.Process(_written(tmp_path / "pid"))
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    process.wait(timeout=30)


def _written(path: Path) -> int:
    while not (path.exists() and path.read_text()):
        time.sleep(0.01)
    return int(path.read_text())
