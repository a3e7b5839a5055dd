"""Runs that wait, from the command line: put in the queue, shown, moved, taken out, and started by themselves.

The engine is real; its worker is `scripted_worker.py`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import ENGINE_SECONDS, Finetui

from engine.demo import MODEL_DIRECTORY, TRAIN_FILE

WORKER = Path(__file__).with_name("scripted_worker.py")


@pytest.fixture
def cli(finetui: Finetui) -> Finetui:
    return finetui.with_environment(FINETUI_WORKER_COMMAND=f"{sys.executable} {WORKER}")


@pytest.fixture
def live(cli: Finetui) -> Iterator[str]:
    """A run that trains until it is stopped, by its name."""
    long = cli.with_environment(SCRIPTED_STEPS="1000000")
    started = long("train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--name", "clinic", "--json")
    assert started.status == 0, started.stderr
    name = started.json_lines()[0]["run"]
    yield name
    for run in cli("runs", "--json").json():
        if run["state"] in ("running", "preparing", "queued"):
            cli("stop", run["name"])
            cli("watch", run["name"])


def state_of(cli: Finetui, name: str) -> str:
    return next(run["state"] for run in cli("runs", "--json").json() if run["name"] == name)


def until(words: tuple[str, ...], cli: Finetui, *arguments: str) -> str:
    """What a command prints once all of `words` are in it."""
    deadline = time.monotonic() + ENGINE_SECONDS
    while not all(each in (shown := cli(*arguments).stdout) for each in words):
        assert time.monotonic() < deadline, shown
    return shown


def test_runs_are_put_in_the_queue_shown_moved_and_taken_out_and_start_by_themselves(cli: Finetui, live: str):
    assert cli("queue").stdout.startswith("No run waits.")
    assert "does not wait in the queue" in cli("queue", "clinic", "--first").stderr
    for name in ("first", "second"):
        queued = cli("train", live, "--name", name, "--after", "clinic")
        assert queued.status == 0, queued.stderr
        assert "queued " in queued.stdout and "finetui queue" in queued.stdout
    why = "waits for clinic to end, then for "
    until(("queued 1st", "queued 2nd"), cli, "runs")
    line = cli("queue", "--json").json()
    assert [(each["place"], each["run"].split("-")[-1], each["after"]) for each in line] == [
        (1, "first", live),
        (2, "second", live),
    ]
    assert all(each["why"].startswith(why) and each["needed_bytes"] > 0 for each in line)
    moved = cli("queue", "second", "--first")
    assert moved.status == 0, moved.stderr
    assert "-second is 1st in line.\n" in moved.stdout
    assert "-second is 1st in line already.\n" in cli("queue", "second", "--sooner").stdout
    rows = [line for line in moved.stdout.splitlines() if why in line]
    assert [row.split()[0] for row in rows] == ["1", "2"] and "-second" in rows[0]
    assert why in until(("queued 1st",), cli, "show", "second")

    stopped = cli("stop", "first")
    assert "leaves the queue" in stopped.stdout
    watched = cli("watch", "first")
    assert watched.status == 3
    assert why in watched.stdout and "stopped on request while it waited in the queue" in watched.stdout

    assert cli("stop", live).status == 0
    assert cli("watch", "second").status == 0
    assert state_of(cli, live) == "stopped"
    assert cli("queue", "--json").json() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("queue", "clinic"), "is not told where to move"),
        (("queue", "--first"), "needs a RUN to move"),
        (("queue", "clinic", "--first", "--last"), "not allowed with"),
        (("queue", "nowhere", "--first"), "there is no such run"),
        (("train", "--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--after", "nowhere"), "there is no such run"),
    ],
)
def test_what_cannot_be_done_is_said(cli: Finetui, arguments: tuple[str, ...], said: str):
    refused = cli(*arguments)
    assert refused.status == 2
    assert said in refused.stderr
    assert not list(cli.home.glob("runs/*-*"))
