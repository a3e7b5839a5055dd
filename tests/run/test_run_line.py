"""The line of those that wait, with many in it: its order is what was said last, and nobody starts twice or beside
another, whoever moves whom and whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "profiles"))
from model_folder import LLAMA, make_model
from waiting import wait_until

from engine.run.creating import create_run
from engine.run.directory import RunDirectory, runs_root
from engine.run.processes.lock import lock_holder
from engine.run.processes.recorded import recorded_processes
from engine.run.waiting import predecessor
from engine.run.waiting.claims import Claim, left_claim, write_claim
from engine.run.waiting.line import MOVES, move, waiting_line
from engine.run.waiting.order import ORDER_NAME
from engine.spec import parse_spec
from profiles.problem import Problem

WAITERS = Path(__file__).with_name("waiters.py")


class Line:
    """Some runs that wait in processes of their own, until `let_go`."""

    def __init__(self, folder: Path, model: Path, count: int, seconds: float):
        values = {"name": "notes", "model": {"path": str(model)}, "data": {"train": ["/data/train.jsonl"]}}
        spec = parse_spec(values, "test")
        self.runs = [create_run(spec) for _ in range(count)]
        self.names = [run.name for run in self.runs]
        self._log, self._free = folder / "starts", folder / "free"
        self._free.write_text("0")
        self.process = subprocess.Popen(
            [sys.executable, str(WAITERS), str(self._log), str(seconds), *self.names],
            env=os.environ | {"FREE_FILE": str(self._free)},
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"all joined\n"

    def let_go(self) -> None:
        """Free memory enough for all of them."""
        new = self._free.with_suffix(".new")
        new.write_text(str(60 << 30))
        new.rename(self._free)

    def log(self) -> list[tuple[str, str]]:
        """("start" | "end", name) in the order of happening."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [(line.split()[0], line.split()[1]) for line in lines]

    def wait(self) -> None:
        assert self.process.wait(60) == 0


@pytest.fixture
def model(home: Path, tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", LLAMA)


@pytest.fixture
def line(model: Path, tmp_path: Path) -> Iterator[Line]:
    waiting = Line(tmp_path, model, count=6, seconds=0.0)
    yield waiting
    waiting.process.kill()
    waiting.process.wait()


def names_in_line() -> list[str]:
    found = waiting_line()
    assert [each.place for each in found] == list(range(1, len(found) + 1))
    return [each.run.name for each in found]


def test_any_number_of_moves_gives_the_line_they_say_and_the_runs_start_in_it(line: Line):
    chance, expected = random.Random(7), list(line.names)
    assert names_in_line() == expected  # as they came, though each run's own clock is behind the last one's
    for _ in range(40):
        name, to = chance.choice(expected), chance.choice(MOVES)
        was = expected.index(name)
        expected.remove(name)
        expected.insert({"first": 0, "sooner": max(0, was - 1), "later": was + 1, "last": 99}[to], name)
        assert move(RunDirectory(runs_root() / name), to) == expected.index(name) + 1
        assert names_in_line() == expected

    # One is killed: its place is nobody's, and the others keep theirs.
    recorded_processes(RunDirectory(runs_root() / (killed := expected.pop(2))))["supervisor"].send(signal.SIGKILL)
    wait_until(lambda: names_in_line() == expected)
    with pytest.raises(Problem, match="does not wait in the queue"):
        move(RunDirectory(runs_root() / killed), "first")
    line.let_go()
    line.wait()
    assert line.log() == [(what, name) for name in expected for what in ("start", "end")]


def test_without_its_order_the_line_is_by_age(line: Line):
    path, by_age = runs_root() / ORDER_NAME, list(line.names)  # though each run's own clock is behind the last one's
    assert move(line.runs[4], "first") == 1
    assert names_in_line() != by_age
    for damage in (b'{"order": ["', b"[1, 2]", b'{"order": {"a": 1}}', b'{"order": [1, null, "../../x"]}', b""):
        path.write_bytes(damage)
        assert names_in_line() == by_age
    path.unlink()
    assert names_in_line() == by_age
    assert move(line.runs[-1], "sooner") == len(by_age) - 1
    by_age[-2:] = by_age[:-3:-1]
    assert names_in_line() == by_age
    assert set(json.loads(path.read_bytes())["order"]) == set(by_age)


@pytest.mark.parametrize(
    ("count", "seed"), [(8, 11), *[pytest.param(16, seed, marks=pytest.mark.slow) for seed in range(3)]]
)
def test_while_all_are_moved_about_and_some_killed_each_starts_once_and_by_itself(
    model: Path, tmp_path: Path, count: int, seed: int
):
    line, chance = Line(tmp_path, model, count, seconds=0.02), random.Random(seed)
    killed = set(line.names[1::3])
    done = threading.Event()

    def push(seed: int) -> None:
        its_chance = random.Random(seed)
        while not done.wait(0.005):
            try:
                move(its_chance.choice(line.runs), its_chance.choice(MOVES))
            except Problem as problem:
                assert "does not wait" in problem.what or "could not be moved" in problem.what

    pushers = [threading.Thread(target=push, args=(seed,)) for seed in range(2)]
    other = subprocess.Popen([sys.executable, "-c", _PUSHER, *line.names], env=os.environ)
    for thread in pushers:
        thread.start()
    line.let_go()
    for run in chance.sample(line.runs, len(line.runs)):
        if run.name in killed:
            recorded_processes(run)["supervisor"].send(signal.SIGKILL)
    line.wait()
    done.set()
    for thread in pushers:
        thread.join()
    other.kill()
    other.wait()

    log = line.log()
    started = [name for what, name in log if what == "start"]
    assert len(started) == len(set(started))
    assert set(line.names) - killed <= set(started)
    trains: str | None = None
    for what, name in log:
        if what == "start":
            assert trains is None or trains in killed, f"{name} began beside {trains}"
            trains = name
        else:
            assert trains == name
            trains = None
    assert names_in_line() == []


def test_a_run_that_begins_just_as_somebody_asks_after_it_has_not_ended(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"name": "notes", "model": {"path": str(model)}, "data": {"train": ["/data/train.jsonl"]}}
    run = create_run(parse_spec(values, "test"))

    def before_it_begins(path: Path) -> int | None:
        held = lock_holder(path)
        run.events_path.touch()
        return held

    monkeypatch.setattr(predecessor, "lock_holder", before_it_begins)
    assert not predecessor.has_ended(run.name)
    assert predecessor.has_ended(run.name), "it began, and nobody holds its lock"


_PUSHER = """
import random, sys, time
from engine.run.directory import RunDirectory, runs_root
from engine.run.waiting.line import MOVES, move
from profiles.problem import Problem
while True:
    time.sleep(0.005)
    try:
        move(RunDirectory(runs_root() / random.choice(sys.argv[1:])), random.choice(MOVES))
    except Problem:
        pass
"""


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\x00",
        b"null",
        b"[" * 100_000,
        b'{"device": "RAM"}',
        b'{"device": "RAM", "needed_bytes": Infinity, "since": 1, "waiting": true}',
        b'{"device": "RAM", "needed_bytes": -5, "since": 1, "waiting": true}',
        b'{"device": "RAM", "needed_bytes": 5, "since": NaN, "waiting": true}',
        b'{"device": "RAM", "needed_bytes": 5, "since": {}, "waiting": true}',
        b" " * (2 << 20) + b'{"device": "RAM", "needed_bytes": 5, "since": 1, "waiting": true}',
        "pipe",
        "link",
        "folder",
    ],
)
def test_what_is_no_claim_is_passed_over(model: Path, text: bytes | str):
    values = {"name": "notes", "model": {"path": str(model)}, "data": {"train": ["/data/train.jsonl"]}}
    run = create_run(parse_spec(values, "test"))
    if text == "pipe":
        os.mkfifo(run.claim_path)
    elif text == "link":
        run.claim_path.symlink_to("/dev/zero")
    elif text == "folder":
        run.claim_path.mkdir()
    else:
        assert isinstance(text, bytes)
        run.claim_path.write_bytes(text)
    assert left_claim(run) is None
    assert waiting_line() == []
    if text != "folder":
        write_claim(run, claim := Claim("RAM", 5, 1.0, waiting=True))
        assert left_claim(run) == claim
