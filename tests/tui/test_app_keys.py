"""What the keys do, pressed in the real app over run folders that a fake source reads."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_run import NOT_FINITE, NOT_FINITE_END, RESTART, STALL, make_run
from fake_seal import WAY_OUT
from fake_source import RUNS, FakeSource, summary
from screen_fakes import press_at_once, read_no_more, until
from screen_fakes import screen_text as shown
from textual.widgets import Input

import engine.run.circumstances
import engine.run.control
import engine.run.launch
import tui.app
from engine.run.circumstances import Change
from engine.run.directory import RunDirectory
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.orphans import Orphan
from profiles.problem import Problem
from tui.app import FinetuiApp
from tui.follow import OrphansRead, RunsRead
from tui.keys import APP_KEYS, KeyedScreen
from tui.screens.help import HelpScreen
from tui.screens.home import HomeScreen
from tui.screens.monitor import MonitorScreen
from tui.screens.seal import SealScreen
from tui.terminal import Terminal
from tui.widgets.panel import Panel
from tui.widgets.run_table import RunTable

NO_ROOM = "the checkpoint needs 3 GiB, 1 GiB free: free some space"
ENDED = tuple(run for run in RUNS if run.state != "running")


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


async def test_what_is_typed_at_once_with_the_key_that_opens_a_line_goes_into_that_line(monkeypatch) -> None:
    left: list[None] = []
    monkeypatch.setattr(FinetuiApp, "do_quit", lambda app: left.append(None))
    app = home()
    async with app.run_test() as pilot:
        await until(pilot, lambda: "tickets-a" in shown(app))
        table = app.screen.query_one(RunTable)
        await press_at_once(pilot, "slash", *"tick quix", "backspace", "enter")
        await until(pilot, lambda: app.focused is None and len(table.runs) == 1)
        assert (app.screen.query_one(Input).value, table.runs[0].spec_name) == ("tick qui", "tickets-quick")
        # Opened again, what is typed takes the place of what stands there.
        await press_at_once(pilot, "slash", *"fir")
        await pilot.press("s", "t", "q")
        assert app.screen.query_one(Input).value == "firstq"
        await pilot.press("escape")
        assert not left and isinstance(app.screen, HomeScreen) and len(table.runs) == len(ENDED)


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
    def refuse(run: RunDirectory, **options: object) -> None:
        raise Problem("disk", "is full", "Free some space.")

    monkeypatch.setattr(engine.run.launch, "resume", refuse)
    run = RunDirectory(make_run(tmp_path, "halted", until=90, outcome="stopped"))
    app = FinetuiApp(run, Terminal(), FakeSource())
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: "■ stopped" in shown(app))
        await pilot.press("r")
        await until(pilot, lambda: "Free some space." in shown(app))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """What was asked of the engine: of each resume and request its run's name and the options."""
    found: list[tuple[str, dict[str, object]]] = []

    def resume(run: RunDirectory, wait: bool = False, **options: object) -> None:
        found.append((run.spec_name, {"wait": wait, **options}))

    def ask(run: RunDirectory, command: str) -> None:
        found.append((run.spec_name, {"command": command}))

    monkeypatch.setattr(engine.run.launch, "resume", resume)
    monkeypatch.setattr(engine.run.control, "ask", ask)
    return found


AS_IT_WAS = {"wait": False, "anyway": False, "learning_rate": None, "seal": None}


@pytest.mark.parametrize(
    ("key", "expected"),
    [("l", {**AS_IT_WAS, "learning_rate": 6.7e-5}), ("a", AS_IT_WAS), ("escape", None)],
)
async def test_a_run_that_met_no_number_goes_on_at_the_rate_that_is_chosen(
    tmp_path: Path, asked: list, key: str, expected: dict[str, object] | None
) -> None:
    run = RunDirectory(make_run(tmp_path, "diverged", then=[NOT_FINITE, NOT_FINITE_END]))
    app = FinetuiApp(run, Terminal(), FakeSource())
    async with app.run_test() as pilot:
        await until(pilot, lambda: "failed · not a number" in shown(app))
        assert "Go on from step 400 with r at a learning rate of 6.7e-05," in shown(app)
        await pilot.press("r")
        await until(pilot, lambda: "at a lower rate (6.7e-5)" in shown(app) and "as it was (2.0e-4)" in shown(app))
        await pilot.press("q", key)  # a key that is no answer is none
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        await until(pilot, lambda: len(asked) == (expected is not None))
        assert asked == ([("diverged", expected)] if expected is not None else [])


@pytest.mark.parametrize(
    ("key", "expected"), [("b", {**AS_IT_WAS, "seal": "best"}), ("a", AS_IT_WAS), ("escape", None)]
)
async def test_a_run_whose_required_seal_did_not_hold_goes_on_at_the_level_that_is_chosen(
    tmp_path: Path, asked: list, key: str, expected: dict[str, object] | None
) -> None:
    remedy = "Or train: `finetui resume NAME --seal best`."
    end = {"kind": "end", "outcome": "failed", "why": "no namespace", "step": 0, "cause": "unsealed", "remedy": remedy}
    run = RunDirectory(make_run(tmp_path, "unsealed", until=0, then=[end]))
    app = FinetuiApp(run, Terminal(), FakeSource())
    async with app.run_test() as pilot:
        await until(pilot, lambda: "r, then b" in shown(app))
        await pilot.press("r")
        await until(pilot, lambda: "is required and did not hold" in shown(app))
        await pilot.press("enter", key)  # a key that is no answer is none
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        await until(pilot, lambda: len(asked) == (expected is not None))
        assert asked == ([("unsealed", expected)] if expected is not None else [])


@pytest.mark.parametrize(("key", "goes_on"), [("c", True), ("escape", False)])
async def test_what_changed_is_told_field_by_field_before_a_run_goes_on(
    tmp_path: Path, asked: list, monkeypatch: pytest.MonkeyPatch, key: str, goes_on: bool
) -> None:
    changes = [Change("torch", "2.11.0", "2.12.1"), Change("optimizer.learning_rate", "0.0002", "[0.0001]")]
    monkeypatch.setattr(engine.run.circumstances, "changes_before_resume", lambda run: changes)
    run = RunDirectory(make_run(tmp_path, "halted", until=90, outcome="stopped"))
    app = FinetuiApp(run, Terminal(), FakeSource())
    async with app.run_test() as pilot:
        await until(pilot, lambda: "■ stopped" in shown(app))
        await pilot.press("r")
        await until(pilot, lambda: "torch was 2.11.0, is 2.12.1" in shown(app))
        assert "is [0.0001]" in shown(app)
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        await until(pilot, lambda: len(asked) == goes_on)
        assert asked == ([("halted", {**AS_IT_WAS, "anyway": True})] if goes_on else [])


@pytest.mark.parametrize(("key", "expected"), [("x", [("hangs", {"command": "restart"})]), ("w", []), ("escape", [])])
async def test_a_stall_is_asked_about_once(tmp_path: Path, asked: list, key: str, expected: list) -> None:
    run = RunDirectory(make_run(tmp_path, "hangs", then=[STALL]))
    app = FinetuiApp(run, Terminal(), FakeSource(live=(run.name,)))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "restart from step 400" in shown(app))
        assert "_get_data" in shown(app)
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        assert "● running ▲ stalled" in shown(app)
        await until(pilot, lambda: asked == expected)
        # It is not asked again while it lasts.
        assert app.screen._snapshot is not None
        app.screen.show_run(dataclasses.replace(app.screen._snapshot, log=("a line",)))
        assert isinstance(app.screen, MonitorScreen)


async def test_the_stack_of_a_stall_is_shown_and_the_question_goes_with_the_stall(tmp_path: Path) -> None:
    run = RunDirectory(make_run(tmp_path, "hangs", then=[STALL]))
    app = FinetuiApp(run, Terminal(), FakeSource(live=(run.name,)))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "restart from step 400" in shown(app))
        monitor = next(screen for screen in app.screen_stack if isinstance(screen, MonitorScreen))
        stalled = monitor._snapshot
        assert stalled is not None
        await read_no_more(pilot)
        heard = dataclasses.replace(stalled, state=dataclasses.replace(stalled.state, stall={}))
        monitor.show_run(heard)
        await until(pilot, lambda: app.screen is monitor)
        assert "stalled" not in shown(app)
        monitor.show_run(stalled)
        await until(pilot, lambda: app.screen is not monitor)
        await pilot.press("v")
        await until(pilot, lambda: "futex_wait_queue" in shown(app) and "recipe.py" in shown(app))


async def test_runs_that_were_interrupted_go_on_together(asked: list) -> None:
    ways = {"cause": "machine_restarted", "interrupted": True, "last_event_at": time.time()}
    interrupted = [
        summary(name, "failed", path=Path(f"/runs/20260105T080000Z-{name}"), **ways) for name in ("one", "two")
    ]
    app = home((*ENDED, *interrupted))
    async with app.run_test() as pilot:
        told = "2 runs were interrupted when the machine restarted:  R resumes them all"
        await until(pilot, lambda: told in shown(app))
        await pilot.press("R")
        side_by_side = {"wait": True, "beside": True}  # as they were; the oldest first
        await until(pilot, lambda: asked == [("two", side_by_side), ("one", side_by_side)])


async def test_a_live_run_does_not_hide_one_that_was_interrupted() -> None:
    interrupted = summary("one", "failed", cause="engine_killed", interrupted=True, last_event_at=time.time())
    app = home((summary("going", "running"), interrupted))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "1 run was interrupted:  R resumes it" in shown(app))
        await pilot.pause()
        assert isinstance(app.screen, HomeScreen)


async def test_the_ends_of_the_line_are_told() -> None:
    app = home(tuple(summary(f"w{place}", "queued", place=place) for place in (1, 2)))
    async with app.run_test() as pilot:
        await until(pilot, lambda: "queued 2nd" in shown(app))
        reasons = {"sooner": "it is the first in line", "later": "it is the last in line"}
        assert [app.screen.why_not(name) for name in reasons] == [reasons["sooner"], None]
        await pilot.press("j")
        assert [app.screen.why_not(name) for name in reasons] == [None, reasons["later"]]


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (RESTART, "restarted     the trainer crashed (SIGSEGV); it goes on from step 400"),
        ({"kind": "phase", "phase": "paused", "detail": NO_ROOM, "done": 0, "total": 0}, f"paused        {NO_ROOM}"),
    ],
)
async def test_what_holds_a_run_up_or_set_it_back_is_in_view_at_once(tmp_path: Path, event: dict, told: str) -> None:
    run = RunDirectory(make_run(tmp_path, "going", until=400, then=[event]))
    app = FinetuiApp(run, Terminal(), FakeSource(live=(run.name,)))
    async with app.run_test() as pilot:
        await until(pilot, lambda: told in shown(app))


async def test_one_that_cannot_go_on_does_not_keep_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    resumed: list[str] = []

    def resume(run: RunDirectory, wait: bool, beside: bool) -> None:
        if run.spec_name == "two":
            raise Problem("two", "its data are gone", "Put them back.")
        resumed.append(run.spec_name)

    monkeypatch.setattr(engine.run.launch, "resume", resume)
    ways = {"cause": "engine_killed", "interrupted": True, "last_event_at": time.time()}
    names = ("one", "two")
    runs = [summary(name, "failed", path=Path(f"/runs/20260105T080000Z-{name}"), **ways) for name in names]
    app = home(tuple(runs))
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: "2 runs were interrupted: " in shown(app))
        await pilot.press("R")
        await until(pilot, lambda: resumed == ["one"] and "its data are gone" in shown(app))


async def test_what_a_run_left_behind_is_offered_for_ending_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    orphan = Orphan(RunDirectory(Path("/runs/1-old")), ProcessIdentity.of(left.pid), "worker", 12_025_908_428, "GPU 0")
    app = home(orphans=(orphan,))
    async with app.run_test(notifications=True) as pilot:
        await until(pilot, lambda: "holds 11.2 GiB of GPU 0" in " ".join(shown(app).split()))
        await pilot.press("y")
        await until(pilot, lambda: left.poll() is not None)
        app.post_message(OrphansRead((orphan,)))
        await pilot.pause()
        assert isinstance(app.screen, HomeScreen)


async def test_the_monitor_switches_charts_and_views(finished: RunDirectory) -> None:
    app = FinetuiApp(finished, Terminal(), FakeSource())
    async with app.run_test() as pilot:
        await until(pilot, lambda: "0 % → 94 %" in shown(app))
        seen = []
        for _ in range(4):
            seen.append(next(line for line in shown(app).splitlines()[4:5]).split()[0])
            await pilot.press("m")
        assert seen == ["loss", "learning", "gradient", "speed"]
        panel = app.screen.query_one("#panel", Panel)
        assert panel.view == "result"
        for view, text in (("log", "held-out loss of the base model"), ("samples", "Ana Ruiz"), ("notes", "set aside")):
            await pilot.press("v")
            assert panel.view == view and text in shown(app)
        await pilot.press("k", "k", "j", "G", "g")


async def test_the_seal_has_a_page_that_follows_the_run(live: RunDirectory) -> None:
    source = FakeSource(live=(live.name,))
    app = FinetuiApp(live, Terminal(), source)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "27 of 27 probes refused" in shown(app))
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, SealScreen) and "best: with the layers" in shown(app))
        for key, part in (("l", "layers"), ("l", "probes"), ("h", "layers"), ("G", "ways out"), ("g", "seal")):
            await pilot.press(key)
            assert f"── {part}" in shown(app)
        await pilot.press("l", "j", "k")
        assert shown(app).splitlines()[2].startswith(" ── layers")
        await read_no_more(pilot)
        await pilot.pause()
        tried = dataclasses.replace(app.screen._snapshot.state, ways_out=(WAY_OUT,))
        app.screen.show_run(dataclasses.replace(app.screen._snapshot, state=tried))
        await pilot.press("G")
        await until(pilot, lambda: "file_utils.py:318" in shown(app))
        await pilot.press("escape")
        assert isinstance(app.screen, MonitorScreen)


async def test_a_way_out_is_said_also_where_the_run_is_in_view(live: RunDirectory) -> None:
    before = summary("going", "running", path=live.path)
    app = FinetuiApp(live, Terminal(), FakeSource((before,), live=(live.name,)))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "27 of 27 probes refused" in shown(app))
        await until(pilot, lambda: app._source.reads > 0)
        now = dataclasses.replace(before, ways_out=1, way_out="connect to 192.0.2.1 (loader.py:41)")
        app.on_runs_read(RunsRead((before,)))
        app.on_runs_read(RunsRead((now,)))
        await until(pilot, lambda: "loader.py:41" in shown(app))


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


async def test_control_c_asks_once_and_then_quits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tui.app, "AGAIN_SECONDS", 600)
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
