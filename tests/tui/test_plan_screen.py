"""The Plan screen, driven by its keys, with the planner and the machine behind it replaced."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from fake_seal import WITHOUT_NAMESPACE
from plan_fakes import FOLDER, GIB, FakePlanner, made_plan, model, workstation
from screen_fakes import HOLD_SECONDS, PLAIN_TERMINAL, ScreenApp, screen_text, until
from textual import events

from profiles.planner import Job
from profiles.problem import Problem
from tui.screens.new_run import NewRunScreen
from tui.screens.plan import PlanScreen
from tui.terminal import Terminal
from tui.widgets.plan import view as plan_view
from tui.widgets.plan.board import Board
from tui.widgets.plan.matrix import PlanMatrix
from tui.widgets.plan.table import PlanTable
from tui.widgets.plan.view import PlanView


@pytest.fixture
def planner() -> FakePlanner:
    return FakePlanner()


def start(planner: FakePlanner, terminal: Terminal | None = None) -> ScreenApp:
    return ScreenApp(PlanScreen(planner.sources()), terminal)


async def reach_plan(pilot, rows_down: int = 0) -> PlanView:
    """Choose the model so many rows down and wait for its plan."""
    await until(pilot, lambda: "parameters" in screen_text(pilot.app))
    await pilot.press(*["j"] * rows_down, "enter")
    await until(pilot, lambda: "to spare" in screen_text(pilot.app))
    return pilot.app.shown.plan


async def replayed(pilot) -> None:
    await until(pilot, lambda: "+0.3 %" in screen_text(pilot.app))


async def test_what_fits_comes_first_and_what_does_not_says_so_in_words(planner: FakePlanner) -> None:
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach_plan(pilot)
        lines = screen_text(app).splitlines()
        assert "17.1 of 24.0 GiB free on RTX 4090" in lines[2]
        assert "bob: python 6.9 GiB" in lines[3]
        named = [line for line in lines if line[1:2] in "✓✗" and "GiB" in line and "spare" not in line]
        assert [line[1] for line in named] == ["✓", "✓", "✓", "✗", "✗", "✗"]
        assert all("does not fit" in line for line in named if line[1] == "✗")
        await pilot.press("G")
        await until(pilot, lambda: "Needs 77.5 GiB" in screen_text(app))


async def test_the_seal_that_a_run_would_have_is_told_of_this_machine_alone(planner: FakePlanner) -> None:
    planner.ability = WITHOUT_NAMESPACE
    may_look = threading.Event()
    sources = dataclasses.replace(planner.sources(), ability=lambda: may_look.wait(HOLD_SECONDS) and planner.ability)
    screen = PlanScreen(sources)
    app = ScreenApp(screen)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach_plan(pilot)  # the plan waits for nobody
        assert screen_text(app).splitlines()[1].strip() == ""
        may_look.set()
        await until(pilot, lambda: "seal   best: landlock, seccomp; no namespace" in screen_text(app))
        await pilot.resize_terminal(140, 24)
        await until(pilot, lambda: "no namespace (AppArmor lets no ordinary user make" in screen_text(app))
        await pilot.press("v", "v")
        await until(pilot, lambda: "H200" in screen_text(app))
        await pilot.press("G", "enter")
        await until(pilot, lambda: "not this machine" in screen_text(app))
        assert "seal" not in screen_text(app)


async def test_moving_a_setting_reprices_that_profile_alone(planner: FakePlanner) -> None:
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        view = await reach_plan(pilot)
        before = [row.shown.peak_bytes for row in view.board.rows]
        await pilot.press("s", "right")  # from the method to the rank
        assert view.profile.settings.rank == 64
        after = [row.shown.peak_bytes for row in view.board.rows]
        assert after[0] > before[0] and after[1:] == before[1:]
        assert "changed by you" in screen_text(app)
        # What the profile has besides is priced as it is; what follows from it is chosen anew.
        assert planner.priced[-1]["train.micro_batch"] == 2
        assert "train.gradient_accumulation" not in planner.priced[-1]
        await pilot.press("left")
        assert "changed by you" not in screen_text(app)
        await pilot.press("right", "right", "r")
        assert view.profile is view.board.rows[0].proposed


async def test_another_method_brings_its_own_settings(planner: FakePlanner) -> None:
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        view = await reach_plan(pilot)
        await pilot.press("l")  # qlora to partial
        assert view.profile.method == "partial"
        assert "layers" in screen_text(app) and " rank " not in screen_text(app)
        assert "does not fit" in screen_text(app)


async def test_a_value_that_the_model_cannot_have_is_refused_in_place(planner: FakePlanner) -> None:
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        view = await reach_plan(pilot)
        await pilot.press("j", "s", "s", "right")  # longest context: from 32,768
        await until(pilot, lambda: "the model's context is 40,960" in screen_text(app))
        assert view.profile.settings.sequence_length == 32768


async def test_a_replay_confirms_once_a_person_rests_and_is_not_repeated(
    planner: FakePlanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_view, "REST_SECONDS", 0.01)
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach_plan(pilot)
        await replayed(pilot)
        await pilot.press("s", "right")
        await until(pilot, lambda: len(planner.replayed) == 2)
        await pilot.press("left")
        await replayed(pilot)
        await pilot.pause(0.1)
    assert len(planner.replayed) == 2


async def test_a_replay_goes_on_where_the_screen_tells_late_that_it_is_seen(
    planner: FakePlanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_view, "REST_SECONDS", 0.01)
    planner.hold = threading.Event()
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        view = await reach_plan(pilot)
        await until(pilot, lambda: "a child process counts" in screen_text(app))
        view.post_message(events.Show())
        await pilot.pause(0.1)
        planner.hold.set()
        await replayed(pilot)
    assert (len(planner.replayed), planner.cancelled) == (1, 0)


async def test_a_replay_is_cancelled_by_the_next_move(planner: FakePlanner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_view, "REST_SECONDS", 0.01)
    planner.hold = threading.Event()
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach_plan(pilot)
        await until(pilot, lambda: "a child process counts" in screen_text(app))
        monkeypatch.setattr(plan_view, "REST_SECONDS", 600)  # no other begins
        await pilot.press("j")
        await until(pilot, lambda: planner.cancelled == 1)
        assert "a child process counts" not in screen_text(app)
        monkeypatch.setattr(plan_view, "REST_SECONDS", 0.01)
        await pilot.press("k")
        await until(pilot, lambda: len(planner.replayed) == 2)
        await pilot.press("escape")  # and by going away
        await until(pilot, lambda: planner.cancelled == 2)


async def test_the_speed_of_this_machine_is_measured_once_and_what_was_changed_is_kept(planner: FakePlanner) -> None:
    planner.measures = True
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        view = await reach_plan(pilot)
        await until(pilot, lambda: "9,999" in screen_text(app))
        await pilot.press("j", "s", "right")
        assert view.board.row.proposed.name == "longest context"
        view.update(planner.plan(FOLDER, workstation()))
        assert view.board.row.proposed.name == "longest context" and view.board.row.changes == {"method.rank": 32}
        assert view.board.setting.field == "method.rank"
        await pilot.press("v", "v")
        await until(pilot, lambda: "H200" in screen_text(app))
        await pilot.press("G", "enter")  # another machine's plan
        await until(pilot, lambda: "not this machine" in screen_text(app))
    assert len(planner.measured) == 1


async def test_models_and_cards_are_a_key_away_and_lead_to_their_plans(planner: FakePlanner) -> None:
    app = start(planner)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: "parameters" in screen_text(app))
        await pilot.press("v")
        await until(pilot, lambda: "Qwen/Qwen3-32B" in screen_text(app))
        matrix = app.shown.query_one("#models", PlanMatrix)
        assert matrix.row.fits == ("full", "partial", "lora", "qlora")
        await pilot.press("G")
        assert matrix.row.fits == ()
        await pilot.press("k", "enter")
        await until(pilot, lambda: "to spare" in screen_text(app) and app.shown.view == "plan")
        await pilot.press("v", "v")
        await until(pilot, lambda: "H200" in screen_text(app))
        await pilot.press("G", "enter")
        await until(pilot, lambda: "on H200, not this machine" in screen_text(app))
        assert "127 of 141 GiB" not in screen_text(app)
        assert "141 of 141 GiB free" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: "17.1 of 24.0 GiB free" in screen_text(app))


async def test_a_run_begins_with_the_chosen_profile_where_the_weights_are_here(planner: FakePlanner) -> None:
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach_plan(pilot)
        await pilot.press("j", "enter")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        draft = app.screen.draft
        assert (app.screen.step, draft.model, draft.profile) == ("data", FOLDER, "longest context")


async def test_a_model_of_the_catalogue_is_planned_for_but_not_run(planner: FakePlanner) -> None:
    app = start(planner)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await reach_plan(pilot, rows_down=1)
        await pilot.press("enter")
        await until(pilot, lambda: "its weights are not on this machine" in screen_text(app))
        assert isinstance(app.screen, PlanScreen)


async def test_a_model_that_cannot_be_read_is_told_of(planner: FakePlanner) -> None:
    planner.problem = Problem("/m/config.json", "is not JSON", "Copy it again.")
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "is not JSON" in screen_text(app))
        looked = planner.found
        await pilot.press("enter")
        await until(pilot, lambda: planner.found > looked)
        assert app.shown.view == "model"
        planner.problem = None  # mended meanwhile
        await pilot.press("enter")
        await until(pilot, lambda: "to spare" in screen_text(app))


async def test_escape_backs_out_one_layer_at_a_time(planner: FakePlanner) -> None:
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.shown
        await reach_plan(pilot)
        await pilot.press("v")
        for view in ("plan", "model"):
            await pilot.press("escape")
            assert screen.view == view
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not screen)


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (200, 50)])
async def test_it_is_drawn_at_every_size_and_in_ascii(planner: FakePlanner, size: tuple[int, int]) -> None:
    app = start(planner, PLAIN_TERMINAL)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "Qwen3-8B" in screen_text(app))
        screen = app.shown
        views = {"plan": lambda: screen.plan.board}
        views |= {name: lambda name=name: screen.query_one(f"#{name}", PlanMatrix).row for name in ("models", "cards")}
        for key, view in (("enter", "plan"), ("G", "plan"), ("v", "models"), ("v", "cards")):
            await pilot.press(key)
            await until(pilot, lambda view=view: screen.view == view and views[view]())
            assert screen_text(app).isascii()
        await pilot.resize_terminal(60, 20)
        await pilot.press("escape")
        await until(pilot, lambda: "peak" in screen_text(app))


async def test_nothing_is_drawn_when_nothing_changes(planner: FakePlanner, monkeypatch: pytest.MonkeyPatch) -> None:
    app = start(planner)
    async with app.run_test(size=(80, 24)) as pilot:
        view = await reach_plan(pilot)
        await replayed(pilot)
        refreshed = []
        monkeypatch.setattr(PlanTable, "refresh", lambda self, *given, **named: refreshed.append(self))
        view._show()
        await pilot.press("g")  # the cursor is there already
        assert refreshed == []


def test_moves_stop_at_the_ends_of_a_setting_and_wrap_around_words(planner: FakePlanner) -> None:
    board = Board(made_plan(model(FOLDER), workstation(), Job()), planner.price)
    for _ in range(12):
        board.change(-1)
    assert board.profile.method in ("lora", "qlora", "partial", "full")
    board.reset()
    board.choose_setting(1)
    for _ in range(12):
        assert board.change(1) is None
    assert board.profile.settings.rank == 256
    priced = len(planner.priced)
    board.change(1)
    assert len(planner.priced) == priced


def test_what_was_moved_before_is_moved_again_or_its_refusal_told(planner: FakePlanner) -> None:
    plan = made_plan(model(FOLDER), workstation(), Job())
    board = Board(plan, planner.price, "leanest", {"method.rank": 32})
    assert (board.row.proposed.name, board.profile.settings.rank, board.row.changes) == (
        "leanest",
        32,
        {"method.rank": 32},
    )
    board = Board(plan, planner.price, "gone", {"data.sequence_length": 65536})
    assert board.cursor == 0 and board.refusal is not None and not board.row.changes
    assert board.profile.peak_bytes < 24 * GIB


def picture_of(planner: FakePlanner, view: str):
    async def before(pilot) -> None:
        await reach_plan(pilot)
        await until(pilot, lambda: all(each in screen_text(pilot.app) for each in ("what it costs", "seal ")))
        if view == "plan":
            await replayed(pilot)
        elif view == "moved":
            await pilot.press("j", "s", "s", "left", "s", "right", "right")
            await replayed(pilot)
        elif view == "models":
            await pilot.press("v")
            await until(pilot, lambda: "Qwen3-32B" in screen_text(pilot.app))
        else:
            await pilot.press("v", "v")
            await until(pilot, lambda: "H200" in screen_text(pilot.app))

    return before


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=["80x24", "200x50"])
@pytest.mark.parametrize("view", ["plan", "moved", "models", "cards"])
def test_picture(snap_compare, planner: FakePlanner, view: str, size: tuple[int, int]) -> None:
    assert snap_compare(start(planner), terminal_size=size, run_before=picture_of(planner, view))


@pytest.mark.parametrize("view", ["moved", "models"])
def test_picture_in_plain_ascii(snap_compare, planner: FakePlanner, view: str) -> None:
    app = start(planner, PLAIN_TERMINAL)
    assert snap_compare(app, terminal_size=(80, 24), run_before=picture_of(planner, view))
