"""A worker that falls silent: noticed, looked into, told once, and left to a person, who may have it begin anew."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_ledger import Ledger
from waiting import end_of, events_of, wait_until

from engine.run.control import ask
from engine.run.directory import RunDirectory
from engine.run.launch import launch, stop
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.reading import read_state
from engine.run.watching.stacks import Stacks, telling_frames
from engine.run.watching.stall import LEAST_SECONDS_VARIABLE, Clocks, StallWatch
from engine.spec import RunSpec
from profiles.problem import Problem

Script = Callable[..., None]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEAST_SECONDS_VARIABLE, "0.5")


def stalls_of(run: RunDirectory, step: int, doing: str) -> list[dict[str, Any]]:
    """Those after `step` in training whose process or stack is told as `doing`: on a busy machine half a second is not
    even enough to start, to come to that, or to end."""
    events = events_of(run)
    after = [event["seq"] for event in events if event["kind"] == "step" and event["step"] == step]
    stalls = [event for event in events if event["kind"] == "stall" and event["phase"] == "training"]
    stalls = [event for event in stalls if after and event["seq"] > after[0]]
    return [event for event in stalls if doing in " ".join([event["process"], *event["stack"]])]


@pytest.mark.usefixtures("quick")
def test_a_worker_that_only_waited_is_told_with_where_and_clears_by_its_next_word(
    tmp_path: Path, spec: RunSpec, script: Script, ledger: Ledger
):
    os.mkfifo(tmp_path / "go on")
    script(["take", 30, 0.01], ["idle_until", str(tmp_path / "go on")], ["take", 3, 0.01], ["finish"])
    ledger.injected("a worker that waits for something")
    run = launch(spec)
    stall, again, *_ = wait_until(lambda: len(told := stalls_of(run, 30, " in idle_until")) > 1 and told)
    assert stall["seconds"] > 0.5 and stall["usual_seconds"] is not None and again["seconds"] > 2 * 0.5
    assert stall["process"] == "waits, and uses no processor time"
    assert any(frame.endswith(" in idle_until") for frame in stall["stack"]) and stall["stack"][0].endswith(
        " in <module>"
    )
    assert all(re.fullmatch(r"[\w./<>-]+:\d+ in [\w<>]+", frame) for frame in stall["stack"])
    assert re.search(r"said nothing for [\d.]+ s in training \(usual: [\d.]+ s\); its process waits", stall["text"])
    assert read_state(run).stall["text"]
    (tmp_path / "go on").write_bytes(b"")
    assert end_of(run)["outcome"] == "finished"
    state = read_state(run)
    assert state.step == 33 and not state.stall


@pytest.mark.usefixtures("quick")
def test_a_worker_lost_in_native_code_shows_its_stack_and_is_begun_anew_on_request(
    tmp_path: Path, spec: RunSpec, script: Script, ledger: Ledger
):
    script(["save_at", 7], ["take", 20, 0.01], ["spin_until", str(tmp_path / "once")], ["finish"])
    ledger.injected("a worker lost in native code")
    run = launch(spec)
    stall = wait_until(lambda: stalls_of(run, 27, " in spin_until"))[0]
    assert stall["process"].startswith("is busy, on ")
    assert stall["stack"][-1].endswith(" in spin_until")
    assert "Thread 0x" in run.log_path.read_text(), "all threads, for whoever looks into it"
    (tmp_path / "once").touch()
    assert ask(run, "restart")["ok"]
    assert end_of(run)["outcome"] == "finished"
    (restart,) = (event for event in events_of(run) if event["kind"] == "restart")
    assert (restart["cause"], restart["step"], restart["number"]) == ("worker_killed", 7, 1)
    assert "a person asked" in restart["text"] and "step 7" in restart["text"]
    first, second = (event for event in events_of(run) if event["kind"] == "attempt")
    assert second["resumed_from"] == 7 and first["worker_pid"] != second["worker_pid"]
    assert not read_state(run).stall


@pytest.mark.usefixtures("quick")
def test_a_suspended_worker_is_told_as_such_and_goes_on(spec: RunSpec, script: Script, ledger: Ledger):
    script(["take", 20, 0.01], ["suspend"], ["take", 3, 0.01], ["finish"])
    ledger.injected("a worker that somebody suspended")
    run = launch(spec)
    stall = wait_until(lambda: stalls_of(run, 20, "suspended"))[0]
    worker = recorded_processes(run)["worker"]
    assert stall["process"] == f"is suspended (`kill -CONT {worker.pid}` lets it go on)" and stall["stack"] == []
    assert worker.send(signal.SIGCONT)
    assert end_of(run)["outcome"] == "finished"
    assert read_state(run).step == 23 and not read_state(run).stall


@pytest.mark.usefixtures("quick")
def test_a_worker_that_a_driver_holds_in_the_kernel_is_told_as_such(spec: RunSpec, script: Script, ledger: Ledger):
    script(["take", 20, 0.01], ["block"])
    ledger.injected("a worker held in the kernel")
    run = launch(spec)
    stall = wait_until(lambda: stalls_of(run, 20, "kernel"))[0]
    assert stall["process"].startswith("waits in the kernel, for a disk or a driver") and stall["stack"] == []
    assert read_state(run).stall, "it still holds: asking for the stack has not ended the worker"
    ask(run, "kill")
    assert end_of(run)["outcome"] == "stopped"


@pytest.mark.usefixtures("quick")
def test_a_run_that_is_to_stop_is_not_begun_anew(spec: RunSpec, script: Script):
    script(["hang"])
    run = launch(spec)
    wait_until(lambda: any(event["kind"] == "note" for event in events_of(run)))
    stop(run)
    with pytest.raises(Problem, match="asked to stop"):
        ask(run, "restart")
    ask(run, "kill")
    assert end_of(run)["outcome"] == "stopped"


class Clock:
    """A machine's clocks, and a worker that says nothing but what a test has it say."""

    def __init__(self) -> None:
        self.running = self.passing = 1000.0

    def pass_on(self, watch: StallWatch, seconds: float) -> list[tuple[str, dict[str, Any]]]:
        """What the watch tells while so much time passes, looking once a second as the supervisor does."""
        told = []
        for _ in range(round(seconds)):
            self.running += 1
            self.passing += 1
            told += watch.look()
        return told


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Iterator[StallWatch]:
    stacks = Stacks()
    # Process 2**22 never is: more than any pid.
    yield StallWatch(2**22, stacks, Clocks(lambda: clock.running, lambda: clock.passing))
    stacks.close()


def say(watch: StallWatch, kind: str, **fields: Any) -> None:
    watch.heard({"kind": kind, **fields})


def take_steps(clock: Clock, watch: StallWatch, count: int, seconds: float) -> None:
    for _ in range(count):
        assert clock.pass_on(watch, seconds) == []
        say(watch, "step")


def test_the_limit_is_learnt_from_the_steps_themselves(clock: Clock, watch: StallWatch):
    say(watch, "phase", phase="training", detail="")
    take_steps(clock, watch, 10, 1)
    assert clock.pass_on(watch, 59) == [], "a minute is nothing, whatever the steps take"
    ((kind, fields),) = clock.pass_on(watch, 10)
    assert kind == "stall" and fields["usual_seconds"] == 1 and 60 < fields["seconds"] < 64

    say(watch, "step")
    take_steps(clock, watch, 60, 40)  # other steps: each takes 40 s
    assert clock.pass_on(watch, 399) == []
    ((_, fields),) = clock.pass_on(watch, 300)
    assert fields["usual_seconds"] == 40
    (_,) = clock.pass_on(watch, 600)  # again once it lasts twice as long, and only then

    say(watch, "step")
    say(watch, "phase", phase="saving", detail="checkpoint of step 9")
    assert clock.pass_on(watch, 1799) == [], "nobody knows how long a first save takes"
    assert clock.pass_on(watch, 10)
    for step in range(3):
        say(watch, "phase", phase="saving", detail=f"checkpoint of step {step}")
        clock.pass_on(watch, 5)
        say(watch, "checkpoint", step=step)
    say(watch, "phase", phase="saving", detail="the tuned model")
    assert clock.pass_on(watch, 1799) == [], "nor how long a model takes, however quick its checkpoints are"


@pytest.mark.parametrize("phase", ["preparing", "loading", "evaluating", "saving"])
def test_what_says_nothing_while_it_lasts_is_given_half_an_hour(clock: Clock, watch: StallWatch, phase: str):
    for _ in range(3 if phase in ("preparing", "loading") else 1):
        say(watch, "phase", phase=phase, detail="something")
    assert clock.pass_on(watch, 1790) == []
    ((kind, fields),) = clock.pass_on(watch, 20)
    assert kind == "stall" and fields["phase"] == phase and fields["usual_seconds"] is None
    say(watch, "phase", phase="paused", detail="the disk is full")
    assert clock.pass_on(watch, 100_000) == [], "it waits for a person, and says so"


def test_a_machine_or_an_engine_that_stood_still_makes_no_stall(clock: Clock, watch: StallWatch):
    say(watch, "phase", phase="training", detail="")
    take_steps(clock, watch, 10, 1)
    clock.passing += 7500  # the lid was closed
    ((kind, fields),) = clock.pass_on(watch, 1)
    assert (kind, fields["text"]) == ("note", "the machine was suspended for 2 h 05 min, and the run with it")
    clock.running += 5000  # a container was frozen, and we with it: no clock of the machine tells
    assert clock.pass_on(watch, 40) == []
    assert clock.pass_on(watch, 30)


def test_of_a_deep_stack_the_innermost_frames_and_our_own_stay():
    deep = "".join(f'  File "/venv/lib/python3.11/site-packages/torch/layer.py", line {n} in call\n' for n in range(30))
    text = (
        'Thread 0x00007f (most recent call first):\n  File "/usr/lib/python3.11/threading.py", line 9 in run\n\n'
        f"Current thread 0x00007e (most recent call first):\n{deep}"
        '  File "/home/some body/tune/engine/train/step.py", line 33 in forward_backward\n'
        '  File "/home/some body/tune/engine/train/recipe.py", line 133 in _step\n'
        '  File "<frozen runpy>", line 88 in _run_code\n'
    )
    assert telling_frames(text) == [
        "engine/train/recipe.py:133 in _step",
        "engine/train/step.py:33 in forward_backward",
        *(f"torch/layer.py:{n} in call" for n in (5, 4, 3, 2, 1, 0)),
    ]
    assert telling_frames("") == []
