"""When a reading of the devices is worth a line in the journal: when a gauge would show it. And the process that reads
them, whatever a driver does to it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from engine.run.telemetry.events import RunState
from engine.run.watching import devices
from engine.run.watching.devices import DeviceFeed, looks_different

GPU = {"index": 0, "name": "GPU", "used_bytes": 8 << 30, "total_bytes": 24 << 30}
READING = {
    "cpu_share": 0.5,
    "memory_used_bytes": 10 << 30,
    "memory_total_bytes": 32 << 30,
    "worker_bytes": 1 << 30,
    "disk_free_bytes": 100 << 30,
    "gpus": [
        GPU | {"celsius": 61, "watts": 212.0, "share": 0.9},
        GPU | {"celsius": None, "watts": None, "share": None},
    ],
}


def changed(name: str, value: float) -> dict:
    if name in READING:
        return READING | {name: value}
    first, second = READING["gpus"]
    return READING | {"gpus": [first | {name: value}, second]}


@pytest.mark.parametrize(
    ("name", "noise", "change"),
    [
        ("cpu_share", 0.502, 0.54),
        ("memory_used_bytes", (10 << 30) + (20 << 20), 11 << 30),
        ("worker_bytes", (1 << 30) + (20 << 20), 2 << 30),
        ("disk_free_bytes", (100 << 30) - (20 << 20), 99 << 30),
        ("used_bytes", (8 << 30) + (20 << 20), 9 << 30),
        ("celsius", 61.2, 62),
        ("watts", 212.3, 220.0),
        ("share", 0.901, 0.5),
        ("share", 0.9, None),
    ],
)
def test_noise_is_no_change_and_a_change_is(name: str, noise: float, change: float):
    assert not looks_different(changed(name, noise), READING)
    assert looks_different(changed(name, change), READING)


class Feed:
    """A feed whose child runs `program`, and all that it gave out."""

    def __init__(self, folder: Path, *program: str, patience_seconds: float):
        command = [sys.executable, "-c", "\n".join(program)] if program else ()
        self._feed = DeviceFeed(folder, command=command, patience_seconds=patience_seconds, pause_seconds=0.1)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.lost = self._feed.lost
        self.follow = self._feed.follow
        self.close = self._feed.close

    def until(self, condition: Callable[[], Any]) -> None:
        def look() -> Any:
            self.events += self._feed.take(RunState)
            return condition()

        wait_until(look)

    @property
    def notes(self) -> list[str]:
        return [fields["text"] for kind, fields in self.events if kind == "note"]

    @property
    def readings(self) -> list[dict[str, Any]]:
        return [fields for kind, fields in self.events if kind == "device"]


@pytest.fixture
def feeds(tmp_path: Path) -> Iterator[Callable[..., Feed]]:
    made: list[Feed] = []

    def make(*program: str, patience_seconds: float = 60.0) -> Feed:
        made.append(Feed(tmp_path, *program, patience_seconds=patience_seconds))
        return made[-1]

    yield make
    for feed in made:
        feed.close()


def test_the_real_child_reads_this_machine_and_follows_a_worker(feeds: Callable[..., Feed]):
    feed = feeds()
    feed.follow(None)
    feed.until(lambda: feed.readings)
    assert feed.readings[0]["worker_bytes"] == 0 < feed.readings[0]["memory_used_bytes"]
    feed.follow(os.getpid())
    feed.until(lambda: feed.readings[-1]["worker_bytes"] > 1 << 20)
    assert feed.notes == []


# The first time as said, and from then on with many readings a second.
ONCE = """
import json, os, sys, time
reading = {"device": %r, "slowed": [], "lost": [1]}
first = not os.path.exists(%r)
open(%r, "w").close()
while not first:
    print(json.dumps(reading), flush=True)
    time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("fault", "patience_seconds", "said"),
    [
        ("time.sleep(600)", 1.0, "a driver does not answer"),
        ("os.abort()", 60.0, "the process that takes them was ended by SIGABRT"),
        ("sys.exit(3)", 60.0, "the process that takes them ended with status 3"),
    ],
)
def test_a_driver_that_hangs_or_crashes_costs_the_readings_for_a_while(
    tmp_path: Path, feeds: Callable[..., Feed], fault: str, patience_seconds: float, said: str
):
    mark = str(tmp_path / "again")
    feed = feeds(ONCE % (READING, mark, mark), fault, patience_seconds=patience_seconds)
    feed.follow(os.getpid())
    feed.until(lambda: len(feed.notes) == 3)
    missing, again, lost = feed.notes
    assert missing == f"no readings of the devices for now: {said}; training goes on"
    assert again == "the devices are read again"
    assert lost.startswith("GPU 1 has fallen off the bus") and feed.lost == ["GPU 1"]
    assert feed.readings == [READING]


def test_what_was_said_last_is_not_lost_though_its_end_is_seen_at_the_same_look(
    feeds: Callable[..., Feed], monkeypatch: pytest.MonkeyPatch
):
    said = json.dumps({"device": READING, "slowed": [], "lost": []})
    feed = feeds("input()", "input()", f"print({said!r})")
    read = devices._Child.readings

    def reading(child: devices._Child) -> list[dict[str, Any]]:
        found = read(child)
        if child.process.returncode is None:
            child.follow(None)  # at which it speaks and ends
            os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
        return found

    monkeypatch.setattr(devices._Child, "readings", reading)
    feed.follow(None)
    feed.until(lambda: feed.notes)
    assert feed.readings == [READING] and feed.notes[0].endswith("ended with status 0; training goes on")


def test_one_that_never_works_is_told_once(feeds: Callable[..., Feed], tmp_path: Path):
    tries = tmp_path / "tries"
    feed = feeds(f"open({str(tries)!r}, 'a').write('.')")
    feed.follow(None)
    feed.until(lambda: tries.exists() and len(tries.read_text()) == 3)
    assert len(feed.notes) == 1
