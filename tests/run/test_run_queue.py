"""Runs that wait: detached, in the order they came or were put, each started once its turn has come and its memory is
free, whatever becomes of the others and of those who started them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import supervise
from fake_runs import without_seal
from waiting import end_of, events_of, hold, kill_run, wait_until

sys.path.insert(0, str(Path(__file__).parents[1] / "profiles"))
from model_folder import LLAMA, make_model

import engine.run.launch
from engine.modules import module_environment
from engine.propose import budget_bytes
from engine.run.control import ask
from engine.run.directory import RunDirectory, list_runs, runs_root
from engine.run.launch import launch, resume, stop
from engine.run.liveness import liveness
from engine.run.processes.orphans import interrupted_runs
from engine.run.processes.recorded import recorded_processes
from engine.run.processes.worker_process import COMMAND_VARIABLE
from engine.run.summary import summarise
from engine.run.telemetry.reading import read_state
from engine.run.waiting.claims import Claim, left_claim, read_claim, write_claim
from engine.run.waiting.line import move, waiting_line
from engine.run.waiting.order import holding_the_line
from engine.run.waiting.returning import in_order_of_return
from engine.run.waiting.room import estimate_for, room_for
from engine.spec import RunSpec, parse_spec
from profiles.hardware import Ram, probe
from profiles.problem import Problem
from tui.app import FinetuiApp
from tui.screens.home import HomeScreen
from tui.terminal import Terminal
from tui.widgets.run_table import RunTable

Script = Callable[..., None]

LONG = ("train", 100_000, 0.01)


class Memory:
    """The free RAM that the engines started here see."""

    def __init__(self, path: Path):
        self._path = path

    def set_free(self, size: float) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text(str(int(size)))
        temporary.rename(self._path)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    monkeypatch.setenv("FREE_FILE", str(tmp_path / "free"))
    command = [sys.executable, supervise.__file__]
    monkeypatch.setattr(engine.run.launch, "module_command", lambda _, *arguments: [*command, *arguments])
    memory = Memory(tmp_path / "free")
    memory.set_free(0)
    return memory


@pytest.fixture
def sealed(home: Path, tmp_path: Path) -> RunSpec:
    """Its seal is tried once its turn has come, which takes a second, and it counts as one that trains meanwhile."""
    model = make_model(tmp_path / "model", LLAMA)
    return parse_spec(
        {"name": "notes", "model": {"path": str(model)}, "data": {"train": ["/data/train.jsonl"]}}, "test"
    )


@pytest.fixture
def spec(sealed: RunSpec) -> RunSpec:
    return without_seal(sealed)


def wait_for_end(run: RunDirectory) -> None:
    wait_until(lambda: liveness(run) != "live")


def is_queued(run: RunDirectory) -> bool:
    return summarise(run).state == "queued"


def enough_for_one(spec: RunSpec) -> int:
    """The free RAM from which on a run of `spec` may start, to 16 MiB."""
    machine = probe(runs_root())
    for free in range(0, supervise.TOTAL_BYTES, 16 << 20):
        hardware = dataclasses.replace(machine, ram=Ram(supervise.TOTAL_BYTES, free), gpus=())
        if budget_bytes(hardware, estimate_for(spec, hardware)) >= room_for(spec, hardware).needed_bytes:
            return free
    raise AssertionError("it never fits")


def finished_at(run: RunDirectory) -> float | None:
    state = read_state(run)
    return state.last_event_at if state.outcome == "finished" else None


def is_training(run: RunDirectory) -> bool:
    return liveness(run) == "live" and read_state(run).step > 0


def test_runs_wait_for_memory_and_start_by_themselves_the_oldest_first(sealed: RunSpec, script: Script, memory: Memory):
    script(LONG)
    needed = room_for(sealed).needed_bytes
    first = launch(sealed, wait=True)
    wait_until(lambda: is_queued(first))
    second = launch(sealed, wait=True)
    wait_until(lambda: is_queued(second) and read_state(second).queued["ahead"] == 1)

    summary, state = summarise(first), read_state(first)
    assert (state.phase, state.attempts, state.worker_pid) == ("queued", 0, None)
    assert (state.queued["needed_bytes"], state.queued["free_bytes"], state.queued["ahead"]) == (needed, 0, 0)
    assert state.queued["device"] == "RAM"
    assert "of RAM, 0 B are free" in summary.why
    assert ask(first, "status")["worker_pid"] is None
    with pytest.raises(Problem, match="waits in the queue"):
        ask(first, "save")

    # Enough for one: the first takes it, and what it was promised is not free for the second.
    memory.set_free(enough_for_one(sealed) + needed // 2)
    wait_until(lambda: is_training(first))
    wait_until(lambda: read_state(second).queued.get("ahead") == 0)
    assert is_queued(second) and summarise(first).state == "running"
    assert read_state(second).queued["usable_bytes"] < needed

    stop(first)
    wait_for_end(first)
    wait_until(lambda: is_training(second))
    assert read_state(second).queued == {}
    stop(second)
    assert end_of(second)["outcome"] == "stopped"
    wait_for_end(second)
    assert not second.claim_path.exists() and not second.ballast_path.exists()


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_run_that_waits_can_be_stopped_and_resumed(spec: RunSpec, script: Script, memory: Memory, way: str):
    script(["train", 3, 0])
    run = launch(spec, wait=True)
    wait_until(lambda: is_queued(run))
    (stop if way == "stop" else lambda run: ask(run, "kill"))(run)
    end = end_of(run)
    wait_for_end(run)
    how = "stopped" if way == "stop" else "killed"
    assert end["why"] == f"{how} on request while it waited in the queue; nothing was started"
    assert end["outcome"] == "stopped" and "by_signal" not in end
    assert summarise(run).state == "stopped"

    resume(run, wait=True)
    wait_until(lambda: is_queued(run))
    with pytest.raises(Problem, match="is running already"):
        resume(run)
    memory.set_free(1 << 35)
    wait_until(lambda: read_state(run).outcome == "finished")
    assert read_state(run).attempts == 1


def test_one_that_waits_starts_when_a_live_one_ends_and_goes_down_where_memory_was_taken_again(
    sealed: RunSpec, script: Script, memory: Memory
):
    needed, free = room_for(sealed).needed_bytes, enough_for_one(sealed)
    memory.set_free(free)
    script(["send", "plan", {"device": "cpu", "predicted_peak_bytes": needed}], LONG)
    live = launch(sealed)  # it does not wait; what it is going to take is not free for the others
    wait_until(lambda: is_training(live) and live.claim_path.exists())
    script(["need", "step", "train.gradient_accumulation", 4], ["train", 3, 0])
    fewer = sealed.model_copy(update={"train": sealed.train.model_copy(update={"micro_batch": 4})})
    second = launch(fewer, wait=True, beside=True)
    wait_until(lambda: is_queued(second) and read_state(second).queued)
    assert read_state(second).queued["usable_bytes"] < needed
    memory.set_free(1 << 35)
    assert end_of(second)["outcome"] == "finished"
    assert [rung["where"] for rung in read_state(second).ladder] == ["step", "step"]
    stop(live)
    wait_for_end(live)


def test_a_run_that_went_down_the_ladder_waits_for_what_it_takes_now(
    spec: RunSpec, script: Script, memory: Memory, monkeypatch: pytest.MonkeyPatch
):
    script(["need", "loading", "train.micro_batch", 1], LONG)
    wide = spec.model_copy(update={"train": spec.train.model_copy(update={"micro_batch": 1 << 12})})
    run = launch(wide)
    wait_until(lambda: read_state(run).ladder and is_training(run))
    stop(run)
    wait_for_end(run)
    needed = room_for(wide).needed_bytes
    small = dataclasses.replace(probe(runs_root()), ram=Ram(needed, 0), gpus=())
    monkeypatch.setattr(engine.run.launch, "room_for", lambda spec: room_for(spec, small))
    with pytest.raises(Problem, match="kept in reserve"):
        launch(wide, wait=True)
    resume(run, wait=True)
    wait_until(lambda: is_queued(run) and read_state(run).queued)
    assert read_state(run).queued["needed_bytes"] < needed / 10
    stop(run)
    wait_for_end(run)


def test_one_that_waits_when_its_engine_is_killed_holds_nobody_up(spec: RunSpec, script: Script, memory: Memory):
    script(["train", 3, 0])
    first, second = launch(spec, wait=True), launch(spec, wait=True)
    wait_until(lambda: is_queued(first) and is_queued(second))
    recorded_processes(first)["supervisor"].send(9)
    wait_for_end(first)
    memory.set_free(1 << 35)
    assert end_of(second)["outcome"] == "finished"
    assert (summarise(first).state, read_state(first).attempts) == ("failed", 0)


def test_where_memory_is_free_nobody_waits(spec: RunSpec, script: Script, memory: Memory):
    memory.set_free(1 << 35)
    script(["train", 3, 0])
    run = launch(spec, wait=True)
    assert end_of(run)["outcome"] == "finished"
    assert not [event for event in events_of(run) if event["kind"] == "queued"]


def test_a_run_that_could_never_start_is_not_put_in_the_queue(spec: RunSpec, script: Script, tmp_path: Path):
    huge = spec.model_copy(update={"train": spec.train.model_copy(update={"micro_batch": 10**7})})
    with pytest.raises(Problem, match="RAM has"):
        launch(huge, wait=True)
    assert list_runs() == []


def test_a_run_that_fits_only_without_any_reserve_is_not_put_in_the_queue(spec: RunSpec, home: Path):
    machine = probe(runs_root())
    needed = room_for(spec).needed_bytes
    for total, possible in ((needed + (256 << 20), False), (needed * 2 + (1 << 30), True)):
        hardware = dataclasses.replace(machine, ram=Ram(total, 0), gpus=())
        room = room_for(spec, hardware)
        assert room.possible == possible
        idle = room_for(spec, dataclasses.replace(hardware, ram=Ram(total, total)))
        assert idle.fits == possible


def test_what_a_person_is_told_before_a_start_names_who_holds_the_memory(spec: RunSpec, home: Path):
    room = room_for(spec)
    assert room.possible and room.free_bytes <= room.total_bytes
    assert room.fits == (room.needed_bytes <= room.usable_bytes)
    for holder in room.holders:
        assert str(holder.pid) in room.sentence() and holder.bytes


def test_one_at_a_time_trains_on_a_device_unless_it_may_be_beside_others(spec: RunSpec, script: Script, memory: Memory):
    memory.set_free(1 << 35)
    script(LONG)
    live = launch(spec)
    script(["train", 3, 0])
    alone, beside = launch(spec, wait=True), launch(spec, wait=True, beside=True)
    why = f"needs RAM, where {live.name} trains"
    wait_until(lambda: summarise(alone).why == why)
    wait_until(lambda: read_state(beside).queued.get("ahead") == 1)
    assert summarise(beside).why.endswith("; 1 run waits before it")
    assert [(each.run, each.place, each.why) for each in waiting_line() if each.run == alone] == [(alone, 1, why)]

    assert move(beside, "first") == 1
    assert end_of(beside)["outcome"] == "finished"
    wait_until(lambda: summarise(alone).place == 1)
    assert is_queued(alone)
    stop(live)
    assert end_of(alone)["outcome"] == "finished"


def test_a_new_order_is_seen_at_the_next_look_and_told(spec: RunSpec, script: Script, memory: Memory):
    script(["train", 3, 0])
    runs = [launch(spec, wait=True) for _ in range(3)]
    wait_until(lambda: [read_state(run).queued.get("place") for run in runs] == [1, 2, 3])
    assert move(runs[2], "first") == 1
    wait_until(lambda: [summarise(run).place for run in runs] == [2, 3, 1])
    assert summarise(runs[1]).why.endswith("; 2 runs wait before it")
    assert "before it" not in summarise(runs[2]).why

    # One that leaves the line and comes back stands behind all others.
    stop(runs[2])
    wait_for_end(runs[2])
    resume(runs[2], wait=True)
    wait_until(lambda: [summarise(run).place for run in runs] == [1, 2, 3])
    memory.set_free(1 << 35)
    ends = [wait_until(lambda run=run: finished_at(run)) for run in runs]
    assert ends == sorted(ends)


async def test_in_the_app_a_run_is_moved_by_keys(spec: RunSpec, script: Script, memory: Memory):
    script(["train", 3, 0])
    runs = [launch(spec, wait=True) for _ in range(2)]
    wait_until(lambda: [read_state(run).queued.get("place") for run in runs] == [1, 2])
    app = FinetuiApp(terminal=Terminal())
    async with app.run_test() as pilot:

        async def until(place: int | None) -> None:
            """Wait until the newest run, which is under the cursor, is shown at `place`."""
            deadline = time.monotonic() + 60
            while (shown := app.screen.query_one(RunTable).run) is None or shown.place != place:
                assert time.monotonic() < deadline, "the app never showed it"
                await pilot.pause(0.02)

        await until(2)
        assert app.screen.query_one(RunTable).run.name == runs[1].name
        assert isinstance(app.screen, HomeScreen)
        assert (app.screen.why_not("sooner"), app.screen.why_not("later")) == (None, "it is the last in line")
        await pilot.press("K")
        await until(1)
        assert app.screen.why_not("sooner") == "it is the first in line"
        assert [each.run for each in waiting_line()] == [runs[1], runs[0]]
        await pilot.press("J")
        await until(2)
        stop(runs[1])
        wait_for_end(runs[1])
        await until(None)
        assert app.screen.why_not("later") == "it does not wait"
    stop(runs[0])
    wait_for_end(runs[0])


def test_one_waits_for_another_to_end_however_it_ends(spec: RunSpec, script: Script, memory: Memory):
    memory.set_free(1 << 35)
    script(LONG)
    first = launch(spec)
    script(["fail", "bad rows"])
    second = launch(spec, wait=True, after=first.name)
    script(["train", 3, 0])
    third = launch(spec, wait=True, after=second.name)
    free = launch(spec, wait=True, beside=True)
    # Those that wait for another let it by, though it came later.
    assert end_of(free)["outcome"] == "finished"
    for run, before in ((second, first), (third, second)):
        why = f"waits for {before.name} to end, then for "
        wait_until(lambda run=run, why=why: summarise(run).why.startswith(why))
    assert read_state(third).queued["after"] == second.name

    with pytest.raises(Problem, match="would wait for itself"):
        resume(free_again(free), wait=True, after=free.name)
    with pytest.raises(Problem, match="no such run to wait for"):
        launch(spec, wait=True, after="20200101T000000Z-notes")

    # The first dies. Before the second has seen that, the first cannot be made to wait for it in turn.
    wait_until(lambda: is_training(first))
    supervisor = recorded_processes(second)["supervisor"]
    hold(supervisor)
    kill_run(first)
    with pytest.raises(Problem, match="would wait for itself"):
        resume(first, after=second.name)
    supervisor.send(signal.SIGCONT)
    assert end_of(third)["outcome"] == "finished"
    assert (summarise(first).state, summarise(second).state) == ("failed", "failed")


def free_again(run: RunDirectory) -> RunDirectory:
    """The run without the end of its journal, as if its engine had died before."""
    wait_for_end(run)
    run.events_path.write_bytes(b"".join(run.events_path.read_bytes().splitlines(keepends=True)[:-1]))
    return run


def test_a_run_that_was_deleted_has_ended(spec: RunSpec, script: Script, memory: Memory):
    memory.set_free(1 << 35)
    script(["train", 3, 0])
    gone = launch(spec)
    wait_for_end(gone)
    script(LONG)
    live = launch(spec)
    script(["train", 3, 0])
    run = launch(spec, wait=True, after=gone.name)
    assert read_state(run).queued.get("after", "") == ""
    other = launch(spec, wait=True, after=live.name)
    wait_until(lambda: read_state(other).queued.get("after") == live.name and is_training(live))
    kill_run(live)
    shutil.rmtree(live.path)
    assert end_of(other)["outcome"] == "finished"
    assert end_of(run)["outcome"] == "finished"


_STARTER = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, {folder!r})
import supervise
import engine.run.launch as launch
from engine.spec import load_spec
launch.module_command = lambda _, *arguments: [sys.executable, supervise.__file__, *arguments]
for script in json.loads(sys.argv[2]):
    os.environ["FINETUI_WORKER_COMMAND"] = script
    print(launch.launch(load_spec(Path(sys.argv[1])), wait=True).path, flush=True)
print("started", flush=True)
time.sleep(600)
"""


def test_with_their_starters_session_gone_one_that_fails_does_not_hold_up_the_rest(
    sealed: RunSpec, script: Script, memory: Memory, tmp_path: Path
):
    commands = []
    bad = [["send", "problem", {"where": "bad.jsonl", "what": "has no row", "fix": "Give another."}], ["leave", 1]]
    for actions in (bad, [["train", 3, 0]], [["train", 3, 0]]):
        script(*actions)
        commands.append(os.environ[COMMAND_VARIABLE])
    (tmp_path / "spec.toml").write_text(sealed.to_toml())
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _STARTER.format(folder=str(Path(__file__).parent)),
            tmp_path / "spec.toml",
            json.dumps(commands),
        ],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert starter.stdout is not None
    runs = [RunDirectory(Path(starter.stdout.readline().strip())) for _ in commands]
    assert starter.stdout.readline() == "started\n"
    os.killpg(starter.pid, signal.SIGHUP)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    wait_until(lambda: all(map(is_queued, runs)))
    memory.set_free(1 << 35)
    ends = [end_of(run) for run in runs]
    assert [end["outcome"] for end in ends] == ["failed", "finished", "finished"]
    assert [end["at"] for end in ends] == sorted(end["at"] for end in ends)
    for run in runs:
        wait_for_end(run)
        assert not run.claim_path.exists()


def test_after_a_restart_of_the_machine_all_are_put_back_in_their_places(spec: RunSpec, script: Script, memory: Memory):
    memory.set_free(1 << 35)
    script(["save_at", 1], LONG)
    trains = launch(spec, wait=True)
    wait_until(lambda: is_training(trains))
    script(["train", 3, 0])
    runs = [launch(spec, wait=True) for _ in range(2)]
    chained = launch(spec, wait=True, after=runs[1].name)
    wait_until(lambda: [each.place for each in waiting_line()] == [1, 2, 3])
    move(runs[1], "first")
    move(chained, "first")
    everyone = [trains, *runs, chained]
    wait_until(lambda: all(is_queued(run) for run in everyone[1:]))
    # The one that trains last: once it is gone, those who wait would have their turn.
    for run in reversed(everyone):
        kill_run(run)
        before_boot(run)
    assert waiting_line() == []
    assert {summarise(run).cause for run in everyone} == {"machine_restarted"}
    assert "while it waited" in summarise(chained).why and "while it waited" not in summarise(trains).why

    memory.set_free(0)
    back = in_order_of_return(everyone)
    assert back == [(trains, False), (runs[1], True), (chained, True), (runs[0], True)]
    for run, waited in back:
        resume(run, wait=True, beside=not waited)
    assert [each.run for each in waiting_line()] == [trains, chained, runs[1], runs[0]]
    memory.set_free(1 << 35)
    ends = [end_of(run)["at"] for run in (trains, runs[1], chained, runs[0])]
    assert ends == sorted(ends)
    assert read_state(trains).resumed_from == 1


def before_boot(run: RunDirectory) -> None:
    """Have the run's processes be of the machine's last boot."""
    values = json.loads(run.pid_path.read_bytes())
    for process in values.values():
        process["boot_id"] = "7e0c5d9e-0000-4000-8000-000000000000"
    run.pid_path.write_text(json.dumps(values))


@pytest.mark.parametrize("way", ["stopped", "driver"])
def test_one_that_is_stuck_holds_nobody_up_and_says_so(
    spec: RunSpec, script: Script, memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
):
    monkeypatch.setenv("SILENT_SECONDS", "1")
    script(["train", 3, 0])
    own = tmp_path / "own"
    own.write_text("0")
    monkeypatch.setenv("FREE_FILE", str(own))
    stuck = launch(spec, wait=True)
    wait_until(lambda: is_queued(stuck))
    monkeypatch.setenv("FREE_FILE", str(tmp_path / "free"))
    behind = launch(spec, wait=True)
    wait_until(lambda: read_state(behind).queued.get("ahead") == 1)
    supervisor = recorded_processes(stuck)["supervisor"]
    if way == "stopped":
        hold(supervisor)
    else:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "pipe").rename(own)
    memory.set_free(1 << 35)
    assert end_of(behind)["outcome"] == "finished"
    if way == "stopped":
        supervisor.send(signal.SIGCONT)
    else:
        wait_until(lambda: "its driver may hang" in summarise(stuck).why)
    stop(stuck)
    assert end_of(stuck)["outcome"] == "stopped"


def test_one_whose_worker_is_started_again_keeps_its_turn(spec: RunSpec, script: Script, memory: Memory):
    memory.set_free(1 << 35)
    script(["need", "step", "train.gradient_accumulation", 4], LONG)
    first = launch(spec.model_copy(update={"train": spec.train.model_copy(update={"micro_batch": 4})}), wait=True)
    script(["train", 3, 0])
    second = launch(spec, wait=True)
    wait_until(lambda: is_training(first))
    assert read_state(first).attempts == 3
    claim = read_claim(first)
    assert claim is not None and not claim.waiting and claim.needed_bytes > 0
    # The claim of one that waits is written anew when it was lost or damaged.
    second.claim_path.write_bytes(b"{")
    wait_until(lambda: [each.run for each in waiting_line()] == [second])
    assert read_state(second).attempts == 0
    stop(first)
    assert end_of(second)["outcome"] == "finished"


def test_nobody_starts_while_another_changes_the_line(spec: RunSpec, script: Script, memory: Memory):
    script(["train", 3, 0])
    run = launch(spec, wait=True)
    wait_until(lambda: is_queued(run))
    with holding_the_line():
        memory.set_free(1 << 35)
        wait_until(lambda: f"cannot tell whether its turn has come: process {os.getpid()} holds" in summarise(run).why)
        assert read_state(run).attempts == 0
    assert end_of(run)["outcome"] == "finished"


def test_one_that_is_resumed_without_waiting_is_not_in_the_line(spec: RunSpec, script: Script, memory: Memory):
    script(["train", 3, 0])
    first = launch(spec, wait=True)
    second = launch(spec, wait=True)
    wait_until(lambda: is_queued(first) and is_queued(second))
    stop(first)
    wait_for_end(first)
    write_claim(first, Claim("RAM", 1, 0.0, waiting=True))  # as if its engine had died with it
    script(LONG)
    # Not by `resume`, which would have it wait again for its claim; and of this very tree, whichever is installed.
    command = [sys.executable, supervise.__file__, str(first.path), "--resume"]
    subprocess.run(command, check=True, capture_output=True, env=module_environment())
    wait_until(lambda: is_training(first))
    assert [each.run for each in waiting_line()] == [second]
    for run in (first, second):
        stop(run)
        wait_for_end(run)


def test_a_shutdown_takes_no_place_in_the_line(spec: RunSpec, script: Script, memory: Memory):
    script(["train", 3, 0])
    first, second = launch(spec, wait=True), launch(spec, wait=True)
    wait_until(lambda: [each.run for each in waiting_line()] == [first, second])
    wait_until(lambda: is_queued(first) and is_queued(second))
    for run in (second, first):
        recorded_processes(run)["supervisor"].send(signal.SIGTERM)
        wait_for_end(run)
    end = end_of(first)
    assert end["outcome"] == "stopped" and end["by_signal"] and "--interrupted" in end["remedy"], end
    assert "--interrupted" in summarise(first).remedy
    assert waiting_line() == []

    third = launch(spec, wait=True)
    assert in_order_of_return(interrupted_runs()[::-1]) == [(first, True), (second, True)]
    for run in (second, first):
        resume(run)
    assert [each.run for each in waiting_line()] == [first, second, third]

    stop(first)
    wait_for_end(first)
    assert left_claim(first) is None, "a person took it out of the line"
    memory.set_free(1 << 35)
    assert end_of(third)["outcome"] == "finished"
    wait_for_end(third)


def test_a_driver_that_hangs_is_told_when_a_place_is_taken(
    spec: RunSpec, script: Script, memory: Memory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HANGING_DRIVER", "1")
    script(["train", 3, 0])
    with pytest.raises(Problem, match="does not answer"):
        launch(spec, wait=True)
    (run,) = list_runs()
    wait_for_end(run)
