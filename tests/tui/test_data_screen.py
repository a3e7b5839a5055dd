"""The Data screen, driven by its keys, over real files, with tokenizer, preparation and report replaced."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from data_fakes import FakeData, intake_rows, write_rows
from screen_fakes import PLAIN_TERMINAL, FakeEngine, ScreenApp, press_at_once, screen_text, until

from engine.data.source import READER
from engine.spec import SourceSection
from profiles.problem import Problem
from tui.screens.data import DataScreen
from tui.screens.new_run import NewRunScreen
from tui.terminal import Terminal
from tui.widgets.data import flow
from tui.widgets.data.board import DataChoice
from tui.widgets.data.findings import warnings_of
from tui.widgets.data.sample import SampleView
from tui.widgets.new_run.places import Place

MODEL = "Llama-small"
ODD_COLUMNS = "id;alpha;beta\n" + "\n".join(
    f"{n};How do I reset it {n}?;Open Settings, choose Reset {n}." for n in range(30)
)


@pytest.fixture
def data(tmp_path: Path) -> FakeData:
    more = write_rows(tmp_path / "more.jsonl", intake_rows(20))
    return FakeData([write_rows(tmp_path / "intake.jsonl", intake_rows()), more])


def start(data: FakeData, terminal: Terminal | None = None) -> ScreenApp:
    return ScreenApp(DataScreen(data.sources()), terminal)


async def reach_sample(pilot, rows_down: int = 0) -> DataScreen:
    """Choose the file so many rows down and wait for its rows."""
    await until(pilot, lambda: "characters" in screen_text(pilot.app))
    await pilot.press(*["j"] * rows_down, "enter")
    await until(pilot, lambda: "of the whole file" in screen_text(pilot.app) and pilot.app.shown.board.counts())
    return pilot.app.shown


def start_new_run(data: FakeData, *files: Path) -> ScreenApp:
    """New run, from which these files can be looked into."""
    model = Place(Path("/home/ada/models/Llama-small"), MODEL, "used before")
    sources = FakeEngine([model], [Place(path, path.name, "~/data") for path in files]).sources()
    return ScreenApp(NewRunScreen(replace(sources, data=data.sources())))


async def choose_model(pilot) -> None:
    await pilot.press("M")
    await until(pilot, lambda: "parameters" in screen_text(pilot.app))
    await pilot.press("enter")
    await until(pilot, lambda: pilot.app.shown.board.lengths and pilot.app.shown.board.lengths.unit == "tokens")


async def test_enter_twice_goes_on_to_a_new_run_of_the_file(data: FakeData) -> None:
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach_sample(pilot)
        assert "✓ 60 whole + ! 0 cut + ✗ 0 set aside = 60 rows" in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        assert app.screen.draft.train == (data.files[0],) and app.screen.step == "model"


async def test_a_bad_file_is_shown_with_its_fix_and_then_goes_on(data: FakeData) -> None:
    write_rows(data.files[0], intake_rows(), broken=2)
    app = start(data)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await reach_sample(pilot)
        assert "2 rows (3.2 %) cannot be used, more than the 1 % allowed" in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: "it cannot be learnt from so" in screen_text(app))
        await pilot.press("f")
        assert screen.board.settings == {"data.max_rejected_share": 0.05}
        assert screen.board.problem() is None
        await pilot.press("f")  # the next thing to do: see them
        await until(pilot, lambda: "set aside  2 rows" in screen_text(app))
        assert "This line has no messages" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: "62 rows  of the whole file" in screen_text(app))


async def test_rows_are_searched_and_narrowed_to_what_matters(data: FakeData) -> None:
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach_sample(pilot)
        sample = screen.query_one(SampleView)
        await press_at_once(pilot, "slash", *"NOTE 17 dizzy", "enter")
        await until(pilot, lambda: [row.line for row in sample.rows] == [18])
        assert "/NOTE 17 dizzy" in screen_text(app)
        await pilot.press("v", "v")
        await until(pilot, lambda: sample.wanted.filter == "long" and "No row is like that" in screen_text(app))
        await pilot.press("v", "escape")
        await until(pilot, lambda: len(sample.rows) == 60)


async def test_the_xray_shows_what_is_learnt_and_follows_the_row(data: FakeData) -> None:
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach_sample(pilot)
        await pilot.press("x")
        await until(pilot, lambda: "press M" in screen_text(app))
        await choose_model(pilot)
        await until(pilot, lambda: "● 11 learnt" in screen_text(app))
        lines = screen_text(app).splitlines()
        assert any(line.startswith(" ○ masked  <|system|>You turn") for line in lines)
        assert any(line.startswith(' ● learnt  {"name"') for line in lines)
        assert "<|end|>■" in screen_text(app)
        await pilot.press("right")
        await until(pilot, lambda: "line 2 " in screen_text(app) and "slept badly" in screen_text(app))
        assert data.xrayed[-1] == 2
    assert data.desks == 0


async def test_moving_the_length_shows_what_it_cuts_and_one_key_mends_it(data: FakeData) -> None:
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach_sample(pilot)
        await choose_model(pilot)
        await pilot.press("t", *["less_than_sign"] * 6)
        await until(pilot, lambda: "< 128 tokens >" in screen_text(app))
        assert "3 rows (5 %) cut" in screen_text(app) and "── cut here: 128 " in screen_text(app)
        assert "57 whole + ! 0 cut + ✗ 3 set aside = 60 rows" in screen_text(app)
        assert "lose their answer at 128 tokens and are set aside" in screen_text(app)
        await pilot.press("f")
        await until(pilot, lambda: "every row is read to its end" in screen_text(app))
        assert screen.board.settings == {"data.sequence_length": 512}
        assert "60 whole + ! 0 cut" in screen_text(app)


async def test_columns_of_any_name_are_pointed_at(data: FakeData, tmp_path: Path) -> None:
    data.files = [tmp_path / "odd.csv"]
    data.files[0].write_text(ODD_COLUMNS)
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no columns that are known" in " ".join(screen_text(app).split()))
        await pilot.press("enter")
        await until(pilot, lambda: "f point at the columns" in screen_text(app))
        await pilot.press("f", *["j"] * 5, "right")  # alpha is the question
        await pilot.press("j", "right")  # beta the answer: the question is taken
        screen = app.shown
        await until(pilot, lambda: screen.board.counts() and screen.board.counts().whole == 30)
        assert screen.board.source.section.shape == "pair"
        assert screen.board.source.section.columns == {"question": "alpha", "answer": "beta"}
        await until(pilot, lambda: "● assistant" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        assert app.screen.draft.sources[0].columns == {"question": "alpha", "answer": "beta"}


async def test_a_template_of_ones_own_is_typed_and_its_fault_told(data: FakeData, tmp_path: Path) -> None:
    data.files = [tmp_path / "odd.csv"]
    data.files[0].write_text(ODD_COLUMNS)
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no columns that are known" in " ".join(screen_text(app).split()))
        await pilot.press("enter", "c", "j", "j", "j", "left")
        await until(pilot, lambda: "answer template" in screen_text(app))
        await pilot.press("j", "j", "e")
        await pilot.press(*"{% if", "enter")
        await until(pilot, lambda: "is not valid Jinja" in " ".join(screen_text(app).split()))
        await pilot.press("e", "ctrl+u", *"Say: {{ beta }}", "enter")
        await until(pilot, lambda: "Say: Open Settings, choose Reset 0." in screen_text(app))


async def test_files_share_an_epoch_by_weight_and_settings_go_along(data: FakeData) -> None:
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach_sample(pilot)
        await pilot.press("m", "a")
        await until(pilot, lambda: screen.view == "choose")
        await pilot.press("j")
        await until(pilot, lambda: screen.query_one("#choose").found(data.files[1]))
        await pilot.press("space", "enter")
        await until(pilot, lambda: screen.board.counts() and screen.board.counts().rows == 80)
        await pilot.press("m", "j", "right")  # the 20 rows of the second file: twice the weight of the 60
        await until(pilot, lambda: "66.7 %" in screen_text(app))
        assert [state.section.weight for state in screen.board.sources] == [1.0, 2.0]
        await pilot.press("j", "right", "right", "right")
        assert screen.board.settings == {"data.rows": 200}
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        assert app.screen.draft.asked["data.rows"] == 200
        assert [source.weight for source in app.screen.draft.sources] == [1.0, 2.0]


async def test_the_report_is_made_in_the_background_and_its_fix_is_one_key(data: FakeData, monkeypatch) -> None:
    data.report_hold = threading.Event()
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach_sample(pilot)
        await pilot.press("r")
        await until(pilot, lambda: "20,000 rows/s" in screen_text(app) and "4 s left" in screen_text(app))
        data.report_hold.set()
        await until(pilot, lambda: "3 held-out rows are among the training rows" in screen_text(app))
        assert screen.why_not("whole") == "it is of every row already"
        await pilot.press("f", "j", "f")
        assert screen.board.settings == {"data.duplicates": "drop_exact", "data.personal": "mask"}
        monkeypatch.setattr("tui.widgets.data.report.REPORT_ROWS", 50)  # fewer than there are rows
        await pilot.press("r", "W")
        await until(pilot, lambda: data.reported == [2000, None])
        await until(pilot, lambda: "3 held-out rows" in screen_text(app))
        await pilot.press("g", "v")
        await until(pilot, lambda: [row.line for row in screen.query_one(SampleView).rows] == [7, 9])


async def test_every_row_is_prepared_in_the_background_and_counted_exactly(data: FakeData) -> None:
    data.prepare_hold = threading.Event()
    place = "connect to 192.0.2.1 port 443, in site-packages/reader/readers/remote_columns.py:318"
    data.tried = f"{READER} tried to reach a network once, and was refused: {place}"
    data.desk_tried = data.tried.replace("once", "twice")
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach_sample(pilot)
        await choose_model(pilot)
        await until(pilot, lambda: "preparing 34 %" in screen_text(app))
        (line,) = [line for line in screen_text(app).splitlines() if "preparing 34 %" in line]
        assert "41,000 rows/s" in line and "2 min left" in line
        data.prepare_hold.set()
        await until(pilot, lambda: "3 of them held out" in screen_text(app))
        assert screen.board.lengths.complete
        assert data.prepared[0].model is not None and data.prepared[0].model.name == MODEL
        await until(pilot, lambda: data.tried in " ".join(screen_text(app).split()))
        told = warnings_of(screen.board)[:2]
        assert [(each.title, each.level) for each in told] == [(data.tried, "bad"), (data.desk_tried, "bad")]


async def test_a_model_without_a_template_is_offered_the_one_that_suits(data: FakeData) -> None:
    data.template_problem = Problem("/m/Llama-small", "has no chat template", "Choose one.")
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach_sample(pilot)
        await pilot.press("M")
        await until(pilot, lambda: "parameters" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "f write them as chatml: it has <|im_start|>" in screen_text(app))
        # Of another model it is asked anew.
        await pilot.press("M", "j", "enter")
        await until(pilot, lambda: "f write them as gemma: it has <start_of_turn>" in screen_text(app))
        data.template_problem = None
        await pilot.press("f")
        await until(pilot, lambda: screen.board.lengths is not None and "nothing to warn of" in screen_text(app))
        assert screen.board.settings == {"data.chat_template": "gemma"}


async def test_new_run_looks_inside_its_file_and_takes_what_was_set_there(data: FakeData) -> None:
    app = start_new_run(data, data.files[0])
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "parameters" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "characters" in screen_text(app))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, DataScreen) and app.screen.board.counts())
        await pilot.press("m", *["j"] * 1, "right", "enter")
        await until(pilot, lambda: app.screen is app.shown and app.shown.step == "plan")
        assert app.shown.draft.data == {"data.rows": 50}
        assert app.shown.draft.train == (data.files[0],)


async def test_whoever_goes_back_and_points_at_another_file_looks_into_that_one(data: FakeData, tmp_path: Path) -> None:
    train, valid = (write_rows(tmp_path / name, intake_rows(20)) for name in ("train.jsonl", "valid.jsonl"))
    app = start_new_run(data, data.files[0], train)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "parameters" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "characters" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.shown.step == "plan")
        assert (app.shown.draft.train, app.shown.draft.held_out) == ((data.files[0],), None)
        await pilot.press("escape", "j")
        await until(pilot, lambda: "valid.jsonl, found beside it (20 rows)" in screen_text(app))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, DataScreen) and app.screen.board.counts())
        assert [state.section.path for state in app.screen.board.sources] == [train]
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.shown and app.shown.step == "plan")
        assert (app.shown.draft.train, app.shown.draft.held_out) == ((train,), valid)


async def test_escape_backs_out_one_layer_at_a_time(data: FakeData) -> None:
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach_sample(pilot)
        await pilot.press("M", "escape", "slash", "escape")
        assert screen.view == "sample"
        await pilot.press("escape")
        assert screen.view == "choose"
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.screen is not screen)


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (200, 50)])
async def test_it_is_drawn_at_every_size_and_in_ascii(data: FakeData, size: tuple[int, int]) -> None:
    choice = DataChoice((SourceSection(path=data.files[0]),), model=Path("/home/ada/models/Llama-small"))
    app = ScreenApp(DataScreen(data.sources(), choice), PLAIN_TERMINAL)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.shown.board.counts() and app.shown.board.lengths)
        for key in "sxtcrm":
            await pilot.press(key)
            await pilot.pause(0.1)
            assert screen_text(app).isascii(), key


async def test_nothing_is_drawn_when_nothing_changes(data: FakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    app = start(data)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach_sample(pilot)
        refreshed = []
        monkeypatch.setattr(SampleView, "refresh", lambda self, *given, **named: refreshed.append(self))
        screen.repaint()
        await pilot.press("g", "k")  # the cursor is there already
        assert refreshed == []


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=["80x24", "200x50"])
@pytest.mark.parametrize("view", ["sample", "xray", "lengths", "columns", "report", "mix"])
def test_picture(
    snap_compare, data: FakeData, monkeypatch: pytest.MonkeyPatch, view: str, size: tuple[int, int]
) -> None:
    assert snap_compare(start(data), terminal_size=size, run_before=picture_of(view, monkeypatch))


@pytest.mark.parametrize("view", ["xray", "lengths"])
def test_picture_in_plain_ascii(snap_compare, data: FakeData, monkeypatch: pytest.MonkeyPatch, view: str) -> None:
    before = picture_of(view, monkeypatch)
    assert snap_compare(start(data, PLAIN_TERMINAL), terminal_size=(80, 24), run_before=before)


def picture_of(view: str, monkeypatch: pytest.MonkeyPatch):
    async def before(pilot) -> None:
        screen = await reach_sample(pilot)
        await choose_model(pilot)
        await pilot.press("t", *["left"] * 5)
        monkeypatch.setattr(flow, "PREPARE_SECONDS", 0.01)  # it need not wait for a next key: there is none
        await pilot.press("left")
        await until(pilot, lambda: "held out" in screen_text(pilot.app))  # all rows are prepared
        if view == "xray":
            await pilot.press("s", *["j"] * 19)
        await pilot.press({"xray": "x", "lengths": "t"}.get(view, view[0]))
        signs = {"xray": "among them", "report": "3 held-out rows", "sample": "line 1"}
        await until(pilot, lambda: screen.board.progress is None and signs.get(view, "") in screen_text(pilot.app))

    return before


async def test_files_of_kinds_that_do_not_go_together_are_told(data: FakeData, tmp_path: Path) -> None:
    data.files = [tmp_path / "chats.jsonl", tmp_path / "liked.jsonl"]
    write_rows(data.files[0], intake_rows(5))
    write_rows(data.files[1], [{"prompt": "How?", "completion": f"So {n}.", "label": n % 2 == 0} for n in range(6)])
    choice = DataChoice(tuple(SourceSection(path=path) for path in data.files))
    app = ScreenApp(DataScreen(data.sources(), choice))
    async with app.run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: "one run learns from one kind" in screen_text(app))
        assert app.shown.why_not("take") == "it cannot be learnt from so"
        await pilot.press("f", "j", "d")
        await until(pilot, lambda: app.shown.board.problem() is None and app.shown.why_not("take") is None)
