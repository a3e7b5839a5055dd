"""A clock that steps back, and years forth: order does not come from it, and nothing crashes or is negative."""

from __future__ import annotations

import itertools
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import stepping_clock
import tiny
from command import Finetui
from fault_ledger import Ledger
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import Survivor, a_spec, quiet_threads, undisturbed
from waiting import end_of, events_of, wait_until

import engine.run.launch
from engine.run.control import ask
from engine.run.creating import create_run
from engine.run.directory import RunDirectory, find_run, list_runs
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.summary import summarise
from engine.run.telemetry.events import RunState
from engine.run.telemetry.folding import fold
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from tui.format import moment_text
from tui.monitor_text import note_blocks, progress_line, readout_line, result_blocks, title_line
from tui.snapshots import RunSnapshot
from tui.theme import make_look

YEAR_SECONDS = 365 * 86_400.0
STEPS = (-3600.0, -2 * YEAR_SECONDS, 30 * YEAR_SECONDS, -60 * YEAR_SECONDS, 0.0)
"""By how much the clock is off, one after the other: an hour back, years back, forth, before 1970, and right again."""


class Clock:
    def __init__(self, path: Path):
        self._path = path
        self.set_off(0.0)

    def set_off(self, seconds: float) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text(str(seconds))
        temporary.rename(self._path)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setenv("CLOCK_FILE", str(tmp_path / "clock"))
    command = [sys.executable, stepping_clock.__file__]
    monkeypatch.setattr(engine.run.launch, "module_command", lambda _, *arguments: [*command, *arguments])
    return Clock(tmp_path / "clock")


def test_a_run_under_a_stepping_clock_goes_on_ends_and_is_resumed(
    spec: RunSpec, script: Callable[..., None], clock: Clock, finetui: Finetui, ledger: Ledger
):
    script(["train", 100_000, 0.01])
    run = launch(spec)
    for off in STEPS:
        clock.set_off(off)
        before = ask(run, "status")
        wait_until(lambda before=before: ask(run, "status")["step"] > before["step"] + 1)
        summary = summarise(run)
        assert summary.state == "running" and summary.seconds_left is not None and summary.seconds_left >= 0
        require_drawable(read_state(run), 80)
        ledger.injected("clock stepped")
    events = events_of(run)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    moments = [event["at"] for event in events]
    assert moments != sorted(moments) and min(moments) < 0
    clock.set_off(-2 * YEAR_SECONDS)
    stop(run)
    wait_until(lambda: liveness(run) == "ended")
    assert end_of(run)["outcome"] == "stopped" and summarise(run).state == "stopped"
    stopped_at = read_state(run).step

    clock.set_off(-3 * YEAR_SECONDS)
    resume(run)
    wait_until(lambda: read_state(run).step > stopped_at)
    state = read_state(run)
    assert (state.attempts, state.damaged) == (2, 0) and summarise(run).state == "running"
    for command in (("runs",), ("runs", "--json")):
        told = finetui(*command)
        assert told.status == 0 and not re.search(r"-\d+ (s|min|h|d)\b", told.stdout), told.stdout
    stop(run)
    wait_until(lambda: liveness(run) == "ended")


@pytest.mark.slow
def test_a_real_run_that_is_killed_under_a_stepping_clock_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, ledger: Ledger
):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    quiet_threads()
    spec = a_spec(tmp_path, tiny.make_model(tmp_path / "llama"))
    expected = undisturbed(spec)
    over = threading.Event()

    def step_the_clock() -> None:
        for off in itertools.cycle(STEPS):
            if over.wait(0.5):
                return
            clock.set_off(off)
            ledger.injected("clock stepped")

    stepping = threading.Thread(target=step_the_clock)
    stepping.start()
    try:
        Survivor(spec, expected, ledger, random.Random(5)).live_through(3)
    finally:
        over.set()
        stepping.join()


def test_the_newest_run_is_the_one_made_last_whatever_the_clock_says(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
):
    real_time = time.time
    made = []
    for off in (0.0, *STEPS, 7000 * YEAR_SECONDS, 0.0):
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda off=off: real_time() + off)
            made.append(create_run(spec))
            assert find_run("latest") == find_run(spec.name) == made[-1]
            ledger.injected("clock stepped")
    assert list_runs() == made[::-1]
    # A name that no calendar has is nobody's guide.
    for name in ("99999999T999999Z-odd", "99991231T235959Z-last"):
        (made[0].path.parent / name).mkdir()
    assert create_run(spec).name.split("-")[0] > made[-1].name.split("-")[0]
    assert list_runs()[1:] == made[::-1]


@pytest.mark.parametrize("off", [-YEAR_SECONDS, YEAR_SECONDS])
def test_a_run_that_never_started_is_not_starting_for_years(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, off: float
):
    real_time = time.time
    run = create_run(spec)
    assert summarise(run).state == "preparing"
    monkeypatch.setattr(time, "time", lambda: real_time() + off)
    assert summarise(run).state == "failed"
    ledger.injected("clock stepped")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats() | st.integers() | st.none(), min_size=6, max_size=6), st.integers(20, 200))
def test_no_moment_in_a_journal_breaks_what_is_shown(moments: list[float | None], width: int):
    fields = {"epoch": 0.1, "loss": 1.0, "learning_rate": 1e-3, "gradient_norm": 1.0, "tokens": 9, "seconds": 0.5}
    kinds = [
        ("attempt", {"number": 1, "resumed_from": None}),
        ("plan", {"planned_steps": 10}),
        ("step", {"step": 1, **fields}),
        ("stall", {"seconds": 5, "usual_seconds": 1, "phase": "training", "process": "", "stack": [], "text": "slow"}),
        ("device", {"gpus": []}),
        ("end", {"outcome": "failed", "cause": "", "why": "it did", "step": 1}),
    ]
    events = [
        {"v": 2, "seq": number, "at": at, "kind": kind, **values}
        for number, (at, (kind, values)) in enumerate(zip(moments, kinds, strict=True), 1)
    ]
    for count in range(1, 7):
        require_drawable(fold(events[:count]), width)


def require_drawable(state: RunState, width: int) -> None:
    """The monitor's words about `state` can be made, and tell of no negative time."""
    look = make_look(ascii=False, no_color=False)
    for liveness_now in ("live", "ended"):
        snapshot = RunSnapshot(RunDirectory(Path("/runs/20260101T000000Z-a")), state, liveness_now)
        lines = [title_line(snapshot, width, look), readout_line(snapshot, width, look)]
        lines += [progress_line(snapshot, None, width, look)]
        blocks = [*note_blocks(snapshot, width, look), *result_blocks(snapshot, width, 40, look)]
        told = "\n".join([*(line.plain for line in lines), *map(str, blocks), moment_text(state.started_at)])
        assert not re.search(r"-\d+ (s|min|h|d)\b", told), told
