"""The follower and its real source: what is posted when, and that only changes are."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_run import make_run, step_event
from fake_source import RUNS, FakeSource, hardware, machine

from engine.run.directory import RunDirectory
from tui.follow import Follower, MachineRead, ReadFailed, RunRead, RunsRead
from tui.snapshots import Machine, looks_different
from tui.source import EngineFeed, EngineSource, memory_users


@pytest.fixture
def following() -> Iterator[Callable[..., tuple[Follower, list]]]:
    """Starts a follower that works fast and collects what it posts; ended after the test."""
    started: list[Follower] = []

    def start(source) -> tuple[Follower, list]:
        posted: list = []
        follower = Follower(source, posted.append)
        follower.RUN_SECONDS = follower.RUNS_SECONDS = follower.MACHINE_SECONDS = 0.005
        follower.start()
        started.append(follower)
        return follower, posted

    yield start
    for follower in started:
        follower.close()
        follower.join(10)
        assert not follower.is_alive()


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def append(run: RunDirectory, *events: dict, end: str = "\n") -> None:
    lines = run.events_path.read_bytes().count(b"\n")
    with run.events_path.open("a") as journal:
        for number, event in enumerate(events, start=lines + 1):
            journal.write(json.dumps({"v": 1, "seq": number, "at": 1.8e9 + number, **event}) + end)


def test_what_did_not_change_is_posted_once(following) -> None:
    source = FakeSource()
    _, posted = following(source)
    wait_for(lambda: source.reads > 20)
    assert [type(message) for message in posted] == [RunsRead, MachineRead]
    assert posted[0].runs == RUNS


def test_a_failure_is_told_once_and_its_end_too(following) -> None:
    class Failing(FakeSource):
        broken = True

        def runs(self):
            if self.broken:
                self.reads += 1
                raise OSError("stale file handle")
            return super().runs()

    source = Failing()
    _, posted = following(source)
    wait_for(lambda: source.reads > 20)
    source.broken = False

    def failures() -> list[str]:
        return [message.what for message in posted if isinstance(message, ReadFailed)]

    wait_for(lambda: len(failures()) > 1)
    assert failures() == ["stale file handle", ""]
    assert any(isinstance(message, RunsRead) for message in posted)


def test_a_fault_of_our_own_does_not_end_the_reading(tmp_path: Path, monkeypatch, following) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))

    class Buggy(FakeSource):
        def machine(self):
            self.reads += 1
            raise KeyError("gpus")

    source = Buggy()
    _, posted = following(source)
    wait_for(lambda: source.reads > 40)
    (told,) = (message.what for message in posted if isinstance(message, ReadFailed))
    assert told.startswith("a fault of finetui's own, KeyError")
    assert len(list((tmp_path / "faults").iterdir())) == 1


def test_only_the_run_looked_at_is_read(tmp_path: Path, following) -> None:
    first = RunDirectory(make_run(tmp_path, "first", until=5))
    second = RunDirectory(make_run(tmp_path, "second", until=9))
    follower, posted = following(FakeSource())
    for run, step in ((first, 5), (second, 9), (first, 5)):
        del posted[:]
        follower.watch_run(run)
        wait_for(lambda: any(isinstance(message, RunRead) for message in posted))
        snapshots = [message.snapshot for message in posted if isinstance(message, RunRead)]
        assert {snapshot.run for snapshot in snapshots} == {run} and snapshots[-1].state.step == step


def test_messages_of_a_kind_replace_one_another() -> None:
    older, newer = RunsRead(()), RunsRead(RUNS)
    assert older.can_replace(newer) and not older.can_replace(MachineRead(machine()))


def test_a_feed_gives_the_same_snapshot_until_something_was_written(tmp_path: Path) -> None:
    run = RunDirectory(make_run(tmp_path, "run", planned=100, until=10))
    feed = EngineFeed(run)
    first = feed.read()
    assert first.state.step == 10 and first.spec is not None and first.spec.name == "run"
    assert first.log[-1] == "held-out loss of the base model: 2.871" or "2.871" in first.log[-1]
    assert not any("\x1b" in line or "[32m" in line for line in first.log)
    assert feed.read() is first
    append(run, step_event(11, 100))
    second = feed.read()
    assert second.state.step == 11 and second.log == first.log
    with run.log_path.open("a") as log:
        log.write("one more line\n")
    assert feed.read().log[-1] == "one more line"


def test_a_torn_line_is_not_there_yet_and_a_damaged_one_is_counted(tmp_path: Path) -> None:
    run = RunDirectory(make_run(tmp_path, "run", planned=100, until=10))
    feed = EngineFeed(run)
    whole = feed.read()
    append(run, step_event(11, 100), end="")
    assert feed.read() is whole
    with run.events_path.open("a") as journal:
        journal.write("\n{broken\n")
    after = feed.read()
    assert after.state.step == 11 and after.state.damaged == 1


def test_the_state_is_the_lock_and_the_end(tmp_path: Path) -> None:
    run = RunDirectory(make_run(tmp_path, "run", planned=100, until=10))
    feed = EngineFeed(run)
    assert (feed.read().liveness, feed.read().word) == ("died", "failed")
    ready, go_on = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:  # fcntl locks show only from another process
        held = run.lock_path.open("w")
        fcntl.lockf(held, fcntl.LOCK_EX)
        os.write(ready[1], b"x")
        os.read(go_on[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    assert (feed.read().liveness, feed.read().word) == ("live", "running")
    append(run, {"kind": "end", "outcome": "stopped", "why": "a person asked for it", "step": 10})
    os.write(go_on[1], b"x")
    os.waitpid(child, 0)
    snapshot = feed.read()
    assert (snapshot.liveness, snapshot.word) == ("ended", "stopped")


def test_a_run_with_a_damaged_spec_is_still_shown(tmp_path: Path) -> None:
    run = RunDirectory(make_run(tmp_path, "run", planned=100, until=10))
    run.spec_path.write_text("name = [")
    snapshot = EngineFeed(run).read()
    assert snapshot.spec is None and "spec.toml" in snapshot.trouble and snapshot.state.step == 10


def test_the_real_machine_and_runs_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    make_run(tmp_path, "older", until=3, started_at=1.7e9, outcome="stopped")
    make_run(tmp_path, "newer", until=3, started_at=1.8e9, outcome="stopped")
    source = EngineSource()
    assert [run.spec_name for run in source.runs()] == ["newer", "older"]
    read = source.machine()
    assert read.hardware.ram.total_bytes > 0 and read.hardware.host
    mine = memory_users({os.getpid(): "my-run"}, read.hardware.ram.total_bytes)
    assert mine[0].name == "my-run" and mine[0].ours and mine[0].resident_bytes > 1 << 20


def test_noise_in_the_gauges_is_not_a_change() -> None:
    import dataclasses

    before = machine()
    ram = before.hardware.ram

    def with_available(available_bytes: int) -> Machine:
        changed = dataclasses.replace(hardware(), ram=dataclasses.replace(ram, available_bytes=available_bytes))
        return dataclasses.replace(before, hardware=changed)

    assert not looks_different(before, with_available(ram.available_bytes - ram.total_bytes // 1000))
    assert looks_different(before, with_available(ram.available_bytes - ram.total_bytes // 100))
    assert looks_different(before, machine(gpus=2))
