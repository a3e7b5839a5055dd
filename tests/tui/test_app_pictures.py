"""Pictures of the screens at 80x24 and 200x50, in colour, without colour, and in ASCII."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fake_run import make_run
from fake_source import RUNS, FakeSource
from textual.pilot import Pilot

from engine.run.directory import RunDirectory
from tui.app import FinetuiApp
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


def press(*keys: str) -> Callable[[Pilot], Awaitable[None]]:
    """Wait until the follower's first reading is shown, then press keys."""

    async def before(pilot: Pilot) -> None:
        app = pilot.app
        assert isinstance(app, FinetuiApp)
        while not (app.screen.query("#runs") and app.screen.query_one("#runs").runs) and not getattr(
            app.screen, "_snapshot", None
        ):
            await pilot.pause(0.02)
        await pilot.press(*keys)
        await pilot.pause()
        # Reading is over: what the machine does meanwhile must not change the picture.
        assert app.follower is not None
        app.follower.close()
        app.follower.join()
        await pilot.pause()

    return before


def live_run() -> RunDirectory:
    return RunDirectory(make_run(Path(), "intake-notes-3"))


def mixed_run() -> RunDirectory:
    return RunDirectory(make_run(Path(), "ward-mix", mixed=True))


def finished_run() -> RunDirectory:
    return RunDirectory(make_run(Path(), "intake-notes-2", until=1200, outcome="finished"))


def failed_run() -> RunDirectory:
    return RunDirectory(make_run(Path(), "tickets-a", planned=4000, until=90, outcome="failed", method="full"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("terminal", TERMINALS)
def test_home(snap_compare, size: str, terminal: str) -> None:
    app = FinetuiApp(terminal=TERMINALS[terminal], source=FakeSource(ENDED, gpus=2))
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


def test_monitor_of_a_failed_run(snap_compare) -> None:
    app = FinetuiApp(failed_run(), Terminal(), FakeSource())
    assert snap_compare(app, terminal_size=(80, 24), run_before=press())


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
        while "No runs yet" not in app.screen.query_one("#runs").empty_text:
            await pilot.pause(0.02)

    assert snap_compare(app, terminal_size=(80, 24), run_before=before)
