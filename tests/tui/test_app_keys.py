"""What the keys do, pressed in the real app over run folders that a fake source reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_run import make_run
from fake_source import RUNS, FakeSource, summary
from textual.pilot import Pilot
from textual.widgets import Input

import engine.run.launch
from engine.run.directory import RunDirectory
from profiles.problem import Problem
from tui.app import FinetuiApp
from tui.keys import APP_KEYS, KeyedScreen
from tui.screens.help import HelpScreen
from tui.screens.home import HomeScreen
from tui.screens.monitor import MonitorScreen
from tui.terminal import Terminal
from tui.widgets.panel import Panel
from tui.widgets.run_table import RunTable

ENDED = tuple(run for run in RUNS if run.state != "running")


async def until(pilot: Pilot, condition: Callable[[], object]) -> None:
    """Let the app work until `condition()` holds."""
    for _ in range(500):
        if condition():
            return
        await pilot.pause(0.02)
    raise AssertionError("the app never came to that")


def shown(app: FinetuiApp) -> str:
    """The text on the screen."""
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in lines)


def home(runs=ENDED, **options) -> FinetuiApp:
    return FinetuiApp(terminal=Terminal(), source=FakeSource(runs, **options))


@pytest.fixture
def finished(tmp_path: Path) -> RunDirectory:
    return RunDirectory(make_run(tmp_path, "done", until=1200, outcome="finished"))


@pytest.fixture
def live(tmp_path: Path) -> RunDirectory:
    return RunDirectory(make_run(tmp_path, "going"))


async def test_the_cursor_moves_and_stays_on_its_run_when_others_come() -> None:
    app = home()
    async with app.run_test() as pilot:
        await until(pilot, lambda: "tickets-a" in shown(app))
        table = app.screen.query_one(RunTable)
        for key, name in (("j", "tickets-a"), ("G", "first-try"), ("j", "first-try"), ("k", "tickets-quick")):
            await pilot.press(key)
            assert table.run is not None and table.run.spec_name == name
        assert isinstance(app.screen, HomeScreen)
        app.screen.show_runs((summary("new-one"), *ENDED))
        assert table.run.spec_name == "tickets-quick"
        await pilot.press("g")
        assert table.run.spec_name == "new-one"


async def test_a_live_run_is_opened_by_itself_and_escape_goes_home(live: RunDirectory) -> None:
    runs = (summary("going", "running", path=live.path), *ENDED)
    app = home(runs, live=(live.name,))
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen) and "● running" in shown(app))
        await pilot.press("escape")
        assert isinstance(app.screen, HomeScreen)
        await until(pilot, lambda: "1 live" in shown(app))
        # It was opened once; it does not come back by itself.
        assert isinstance(app.screen, HomeScreen)


async def test_filter_shows_what_contains_the_words_and_escape_shows_all() -> None:
    app = home()
    async with app.run_test() as pilot:
        await until(pilot, lambda: "tickets-a" in shown(app))
        await pilot.press("slash", *"tick stop")
        assert [run.spec_name for run in app.screen.query_one(RunTable).runs] == ["tickets-quick"]
        await pilot.press("enter", "j")
        assert app.screen.query_one(Input).value == "tick stop"
        await pilot.press("escape")
        assert len(app.screen.query_one(RunTable).runs) == len(ENDED)


async def test_a_key_that_cannot_be_used_says_why() -> None:
    app = home()
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: "tickets-a" in shown(app))
        await pilot.press("s")
        await until(pilot, lambda: "it is finished" in shown(app))
        assert isinstance(app.screen, HomeScreen)


async def test_stop_is_confirmed_first(live: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[RunDirectory] = []
    monkeypatch.setattr(engine.run.launch, "stop", stopped.append)
    app = FinetuiApp(live, Terminal(), FakeSource(live=(live.name,)))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "● running" in shown(app))
        for answer in ("n", "escape"):
            await pilot.press("s")
            await until(pilot, lambda: "Stop going?" in shown(app))
            await pilot.press(answer)
        await pilot.press("s")
        await until(pilot, lambda: "Stop going?" in shown(app))
        assert not stopped
        await pilot.press("y")
        await until(pilot, lambda: stopped == [live])


async def test_a_problem_is_shown_with_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: RunDirectory) -> None:
        raise Problem("disk", "is full", "Free some space.")

    monkeypatch.setattr(engine.run.launch, "resume", refuse)
    run = RunDirectory(make_run(tmp_path, "halted", until=90, outcome="stopped"))
    app = FinetuiApp(run, Terminal(), FakeSource())
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: "■ stopped" in shown(app))
        await pilot.press("r")
        await until(pilot, lambda: "Free some space." in shown(app))


async def test_the_monitor_switches_charts_and_views(finished: RunDirectory) -> None:
    app = FinetuiApp(finished, Terminal(), FakeSource())
    async with app.run_test() as pilot:
        await until(pilot, lambda: "0 % → 94 %" in shown(app))
        seen = []
        for _ in range(4):
            seen.append(next(line for line in shown(app).splitlines()[3:4]).split()[0])
            await pilot.press("m")
        assert seen == ["loss", "learning", "gradient", "speed"]
        panel = app.screen.query_one("#panel", Panel)
        assert panel.view == "result"
        for view, text in (("log", "held-out loss of the base model"), ("samples", "Ana Ruiz"), ("notes", "set aside")):
            await pilot.press("v")
            assert panel.view == view and text in shown(app)
        await pilot.press("k", "k", "j", "G", "g")


async def test_copy_takes_the_output_of_a_finished_run(finished: RunDirectory) -> None:
    app = FinetuiApp(finished, Terminal(), FakeSource())
    async with app.run_test() as pilot:
        await until(pilot, lambda: "0 % → 94 %" in shown(app))
        await pilot.press("y")
        assert app.clipboard == str(finished.path / "outputs/adapter")


async def test_quitting_says_which_runs_go_on(live: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = (summary("going", "running", path=live.path),)
    app = home(runs, live=(live.name,))
    async with app.run_test() as pilot:
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        said: list[str] = []
        monkeypatch.setattr(app, "exit", lambda *, message: said.append(message))
        await pilot.press("q")
        assert said == ["going goes on. Type finetui to come back."]


async def test_control_c_asks_once_and_then_quits() -> None:
    app = home()
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: "tickets-a" in shown(app))
        await pilot.press("ctrl+c")
        await until(pilot, lambda: "Ctrl-C again" in shown(app))
        assert app._exit is False
        await pilot.press("ctrl+c")
        assert app._exit is True


@pytest.mark.parametrize("screen", ["home", "monitor"])
async def test_help_tells_every_key_of_the_screen(screen: str, finished: RunDirectory) -> None:
    app = home() if screen == "home" else FinetuiApp(finished, Terminal(), FakeSource())
    async with app.run_test(size=(100, 60)) as pilot:
        await until(pilot, lambda: "finished" in shown(app))
        explained = app.screen
        assert isinstance(explained, KeyedScreen)
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        text = " ".join(shown(app).split())
        for key in explained.all_keys:
            assert key.help.split(".")[0][:40] in text and key.shown in text
            assert hasattr(explained, f"do_{key.name}") or hasattr(app, f"do_{key.name}")
        await pilot.press("escape")
        assert app.screen is explained
    assert {key.name for key in APP_KEYS} == {"help", "palette", "redraw", "suspend", "quit"}


async def test_the_palette_does_what_a_key_does() -> None:
    app = home()
    async with app.run_test() as pilot:
        await until(pilot, lambda: "tickets-a" in shown(app))
        await pilot.press("ctrl+p", *"find")
        await until(pilot, lambda: "Show only runs that contain" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.query(Input) and app.screen.query_one(Input).has_focus)


async def test_a_run_that_cannot_be_read_is_a_message_and_not_the_end(tmp_path: Path) -> None:
    class Broken(FakeSource):
        def runs(self):
            raise OSError("the disk is gone")

    app = FinetuiApp(terminal=Terminal(), source=Broken())
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: "the disk is gone" in shown(app))
        assert app.follower is not None and app.follower.is_alive()
