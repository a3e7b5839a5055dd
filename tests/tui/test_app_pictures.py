"""Pictures of the screens at 80x24 and 200x50, in colour, without colour, and in ASCII."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fake_run import NOT_FINITE, NOT_FINITE_END, RESTART, STALL, THROTTLE, make_run
from fake_seal import IN_PART, OPENED, SEAL, SEAL_CHANGED, SEAL_CHECK, UNSEALED, WAY_OUT
from fake_source import RUNS, FakeSource, summary
from screen_fakes import read_no_more, until
from textual.pilot import Pilot
from textual.screen import Screen

import engine.run.circumstances
from engine.run.circumstances import Change
from engine.run.directory import RunDirectory
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.orphans import Orphan
from engine.run.summary import RunSummary
from tui.app import FinetuiApp
from tui.screens.home import HomeScreen
from tui.terminal import Terminal

SIZES = {"80x24": (80, 24), "200x50": (200, 50)}
TERMINALS = {
    "color": Terminal(),
    "no-color": Terminal(no_color=True),
    "ascii": Terminal(ascii=True, no_color=True),
}
ENDED = tuple(run for run in RUNS if run.state != "running")


@pytest.fixture(autouse=True)
def same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run folders get relative paths and moments are in UTC, so that pictures do not depend on who takes them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()


def _is_read(screen: Screen) -> bool:
    """Whether a screen, with a dialog above it or without, shows all that the follower reads for it."""
    if isinstance(screen, HomeScreen):
        return screen._all is not None and screen._machine is not None
    return bool(getattr(screen, "_snapshot", None))


def press(*keys: str) -> Callable[[Pilot], Awaitable[None]]:
    """Wait until the follower's first reading is shown, then press keys."""

    async def before(pilot: Pilot) -> None:
        app = pilot.app
        assert isinstance(app, FinetuiApp)
        await until(pilot, lambda: any(_is_read(screen) for screen in app.screen_stack))
        await pilot.press(*keys)
        await read_no_more(pilot)

    return before


def live_run() -> RunDirectory:
    return RunDirectory(make_run(Path(), "intake-notes-3"))


def mixed_run() -> RunDirectory:
    return RunDirectory(make_run(Path(), "ward-mix", mixed=True))


def finished_run() -> RunDirectory:
    return RunDirectory(make_run(Path(), "intake-notes-2", until=1200, outcome="finished"))


def failed_run() -> RunDirectory:
    return RunDirectory(make_run(Path(), "tickets-a", planned=4000, method="full", then=[NOT_FINITE, NOT_FINITE_END]))


def stopped_run() -> RunDirectory:
    return RunDirectory(make_run(Path(), "intake-notes-2", until=300, outcome="stopped", why="stopped on request"))


def stalled_run() -> RunDirectory:
    return RunDirectory(make_run(Path(), "intake-notes-3", then=[RESTART, THROTTLE, STALL]))


NAMED = "20260105T080000Z-{}"
"""How `summary` names the folder of a run."""


def troubled_runs() -> tuple[RunSummary, ...]:
    """A run in each state that needs a person."""
    not_finite = {"step": 412, "planned_steps": 4000, "loss": None, "why": str(NOT_FINITE_END["why"])}
    remedy = str(NOT_FINITE_END["remedy"]).replace("NAME", NAMED.format("tickets-a"))
    interrupted = {
        "cause": "machine_restarted",
        "interrupted": True,
        "why": "the machine went down or was restarted after step 330; the checkpoint of step 300 remains",
        "remedy": f"Go on from step 300 with `finetui resume {NAMED.format('ward-mix')}`.",
        "last_event_at": time.time(),
        "step": 330,
    }
    return (
        summary("intake-notes-3", "running", step=412, seconds_left=1080, stalled=True, why=str(STALL["text"])),
        summary("letters-3", "running", step=40, seal="open", seal_broken="the listener outside was reached once"),
        summary("letters-4", "queued", step=0, loss=None, held_out_loss=None, place=1, why="waits for intake-notes-3"),
        summary("tickets-a", "failed", method="full", cause="not_finite", remedy=remedy, **not_finite),
        summary("ward-mix", "failed", **interrupted),
        summary("ward-mix-2", "failed", **interrupted),
        summary("big-one", "failed", cause="gpu_memory", why="GPU memory: ran out in a training step", loss=1.4),
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("terminal", TERMINALS)
def test_home(snap_compare, size: str, terminal: str) -> None:
    app = FinetuiApp(terminal=TERMINALS[terminal], source=FakeSource(ENDED, gpus=2))
    assert snap_compare(app, terminal_size=SIZES[size], run_before=press("j"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("terminal", ["color", "ascii"])
def test_home_with_runs_that_need_a_person(snap_compare, size: str, terminal: str) -> None:
    app = FinetuiApp(terminal=TERMINALS[terminal], source=FakeSource(troubled_runs()))
    app._may_open_live_run = False
    assert snap_compare(app, terminal_size=SIZES[size], run_before=press("j", "j", "j"))


@pytest.mark.parametrize("size", SIZES)
def test_home_with_a_seal_that_is_open(snap_compare, size: str) -> None:
    app = FinetuiApp(terminal=Terminal(), source=FakeSource(troubled_runs()))
    app._may_open_live_run = False
    assert snap_compare(app, terminal_size=SIZES[size], run_before=press("j"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("terminal", TERMINALS)
def test_monitor_of_a_live_run(snap_compare, size: str, terminal: str) -> None:
    run = live_run()
    app = FinetuiApp(run, TERMINALS[terminal], FakeSource(live=(run.name,)))
    assert snap_compare(app, terminal_size=SIZES[size], run_before=press())


@pytest.mark.parametrize("size", SIZES)
def test_monitor_of_a_run_of_several_sources(snap_compare, size: str) -> None:
    run = mixed_run()
    app = FinetuiApp(run, TERMINALS["color"], FakeSource(live=(run.name,)))
    assert snap_compare(app, terminal_size=SIZES[size], run_before=press("v", "v", "v", "v"))


@pytest.mark.parametrize("size", SIZES)
def test_monitor_of_a_finished_run(snap_compare, size: str) -> None:
    app = FinetuiApp(finished_run(), Terminal(), FakeSource())
    assert snap_compare(app, terminal_size=SIZES[size], run_before=press())


@pytest.mark.parametrize("size", SIZES)
def test_monitor_of_a_failed_run(snap_compare, size: str) -> None:
    app = FinetuiApp(failed_run(), Terminal(), FakeSource())
    assert snap_compare(app, terminal_size=SIZES[size], run_before=press())


@pytest.mark.parametrize("size", SIZES)
def test_a_stall_is_asked_about(snap_compare, size: str) -> None:
    run = stalled_run()
    app = FinetuiApp(run, Terminal(), FakeSource(live=(run.name,)))
    assert snap_compare(app, terminal_size=SIZES[size], run_before=press())


@pytest.mark.parametrize("terminal", ["color", "ascii"])
def test_monitor_of_a_run_that_stalls(snap_compare, terminal: str) -> None:
    run = stalled_run()
    app = FinetuiApp(run, TERMINALS[terminal], FakeSource(live=(run.name,)))
    assert snap_compare(app, terminal_size=(80, 24), run_before=press("w"))


@pytest.mark.parametrize("size", SIZES)
def test_the_stack_of_a_run_that_stalls(snap_compare, size: str) -> None:
    run = stalled_run()
    app = FinetuiApp(run, Terminal(), FakeSource(live=(run.name,)))
    assert snap_compare(app, terminal_size=SIZES[size], run_before=press("v"))


SEALS = {
    "in part": (IN_PART, [SEAL_CHECK, WAY_OUT]),
    "open": (OPENED, []),
    "changed": (SEAL, [SEAL_CHANGED]),
    "off": (UNSEALED, []),
    "unknown": (None, []),
}


@pytest.mark.parametrize("seal", SEALS)
def test_monitor_of_a_run_that_is_not_wholly_sealed(snap_compare, seal: str) -> None:
    made, then = SEALS[seal]
    run = RunDirectory(make_run(Path(), "intake-notes-3", seal=made, then=then))
    app = FinetuiApp(run, Terminal(), FakeSource(live=(run.name,)))
    assert snap_compare(app, terminal_size=(80, 24), run_before=press("v", "v"))


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("size", SIZES)
def test_the_seal_of_a_run(snap_compare, size: str, terminal: str) -> None:
    run = RunDirectory(make_run(Path(), "intake-notes-3", then=[SEAL_CHECK]))
    app = FinetuiApp(run, TERMINALS[terminal], FakeSource(live=(run.name,)))
    assert snap_compare(app, terminal_size=SIZES[size], run_before=press("p"))


@pytest.mark.parametrize("keys", ["p", "pllll"])
def test_the_seal_of_a_run_that_is_sealed_in_part(snap_compare, keys: str) -> None:
    run = RunDirectory(make_run(Path(), "intake-notes-3", seal=IN_PART, then=[SEAL_CHANGED, WAY_OUT]))
    app = FinetuiApp(run, Terminal(), FakeSource(live=(run.name,)))
    assert snap_compare(app, terminal_size=(80, 24), run_before=press(*keys))


def dialog_over(run: RunDirectory, changes: list[Change], monkeypatch: pytest.MonkeyPatch) -> FinetuiApp:
    monkeypatch.setattr(engine.run.circumstances, "changes_before_resume", lambda run: changes)
    return FinetuiApp(run, Terminal(), FakeSource())


def pressing(*keys: str) -> Callable[[Pilot], Awaitable[None]]:
    """As `press`, and each key's dialog is waited for."""

    async def before(pilot: Pilot) -> None:
        await press()(pilot)
        for key in keys:
            screens = len(pilot.app.screen_stack)
            await pilot.press(key)
            await until(pilot, lambda screens=screens: len(pilot.app.screen_stack) > screens)
        await pilot.pause()

    return before


def test_the_rate_to_go_on_at_is_asked_about(snap_compare, monkeypatch: pytest.MonkeyPatch) -> None:
    app = dialog_over(failed_run(), [], monkeypatch)
    assert snap_compare(app, terminal_size=(80, 24), run_before=pressing("r"))


def test_what_changed_since_is_asked_about(snap_compare, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = "3f6c1d90a1b2" + "0" * 52
    changes = [
        Change("versions.torch", "2.11.0+cu128", "2.12.1+cu128"),
        Change("optimizer.learning_rate", "0.0002", "0.0001"),
        Change("data.train 1 (intake.jsonl)", digest, "9c" + digest[2:]),
    ]
    app = dialog_over(stopped_run(), changes, monkeypatch)
    assert snap_compare(app, terminal_size=(80, 24), run_before=pressing("r"))


def test_what_a_run_left_behind_is_asked_about(snap_compare) -> None:
    run = RunDirectory(Path("runs/20260105T080000Z-intake-notes-1"))
    left = Orphan(run, ProcessIdentity(4242, 1, "boot"), "worker", int(11.2 * 1024**3), "GPU 0")
    app = FinetuiApp(terminal=Terminal(), source=FakeSource(ENDED, orphans=(left,)))

    async def before(pilot: Pilot) -> None:
        await until(pilot, lambda: len(app.screen_stack) > 1)
        await press()(pilot)

    assert snap_compare(app, terminal_size=(80, 24), run_before=before)


def test_samples_on_the_whole_screen(snap_compare) -> None:
    app = FinetuiApp(finished_run(), Terminal(), FakeSource())
    assert snap_compare(app, terminal_size=(80, 24), run_before=press("v", "v", "z"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("terminal", ["color", "ascii"])
def test_help(snap_compare, size: str, terminal: str) -> None:
    run = live_run()
    app = FinetuiApp(run, TERMINALS[terminal], FakeSource(live=(run.name,)))
    assert snap_compare(app, terminal_size=SIZES[size], run_before=press("question_mark"))


def test_stop_is_asked_about(snap_compare) -> None:
    run = live_run()
    app = FinetuiApp(run, Terminal(), FakeSource(live=(run.name,)))
    assert snap_compare(app, terminal_size=(80, 24), run_before=press("s"))


def test_home_without_runs(snap_compare) -> None:
    app = FinetuiApp(terminal=Terminal(), source=FakeSource((), gpus=0))

    async def before(pilot: Pilot) -> None:
        await press()(pilot)
        assert "No runs yet" in app.screen.query_one("#runs").empty_text

    assert snap_compare(app, terminal_size=(80, 24), run_before=before)
