"""New run, driven by its keys alone, with the engine behind it replaced."""

from __future__ import annotations

import json
import threading
import tomllib
from pathlib import Path

import pytest
from fake_seal import WITHOUT_NAMESPACE
from screen_fakes import (
    DATA,
    GIB,
    HOLD_SECONDS,
    MODELS,
    PLAIN_TERMINAL,
    FakeEngine,
    ScreenApp,
    press_at_once,
    screen_text,
    until,
)

from engine.demo import MODEL_DIRECTORY
from engine.run.surviving.session_limits import Caution
from engine.run.waiting.room import Holder, Room
from engine.spec import SourceSection, parse_spec
from profiles.problem import Problem
from tui.screens.new_run import NewRunScreen
from tui.terminal import Terminal
from tui.widgets import path_picker
from tui.widgets.data.board import DataChoice
from tui.widgets.new_run.draft import SETTINGS, Draft, check
from tui.widgets.new_run.places import Place, completions, data_places, held_out_beside, model_places
from tui.widgets.new_run.sources import Sources
from tui.widgets.path_picker import PathPicker
from tui.widgets.plan.step import PlanStep

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"Note {number}: Ana Ruiz called, her rash is back since Tuesday."},
            {"role": "assistant", "content": '{"name":"Ana Ruiz","complaint":"rash"}'},
        ]
    }
    for number in range(40)
]


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, ROWS)))
    places = [Place(MODELS / "Llama-small", "Llama-small", "used before")]
    places.append(Place(MODELS / "broken", "broken", "~/models"))
    files = [Place(DATA / name, name, "used before") for name in ("intake.jsonl", "more.jsonl", "check.jsonl")]
    return FakeEngine(places, files, rows)


def start(engine: FakeEngine, terminal: Terminal | None = None) -> ScreenApp:
    return ScreenApp(NewRunScreen(engine.sources()), terminal)


async def reach(pilot, step: str) -> NewRunScreen:
    """Press Enter until `step` is on the screen and has what it shows."""
    screen = pilot.app.shown
    await until(pilot, lambda: "2,621,440" in screen_text(pilot.app) or "2.6 M" in screen_text(pilot.app))
    signs = {"data": "characters", "plan": "to spare", "settings": "MiB", "review": "command"}
    for after in ("data", "plan", "settings", "review"):
        if screen.step == step:
            break
        await pilot.press("enter")
        await until(pilot, lambda: screen.step == after and signs[after] in screen_text(pilot.app))  # noqa: B023
    return screen


async def test_enter_alone_starts_a_run_with_what_is_proposed(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach(pilot, "review")
        await pilot.press("enter")
        await until(pilot, lambda: app.opened)
    (spec,) = engine.launched
    assert (spec.model.path, spec.data.paths) == (MODELS / "Llama-small", (DATA / "intake.jsonl",))
    assert (spec.train.micro_batch, spec.method.rank, spec.data.held_out) == (8, 16, None)
    assert app.opened == ["the run intake"]


async def test_the_chosen_profile_is_what_the_rest_is_proposed_from(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "plan")
        await pilot.press("j", "enter")
        await until(pilot, lambda: screen.step == "settings" and screen.draft.proposal)
        assert (screen.draft.profile, screen.draft.moved, screen.draft.overrides) == ("longest context", None, {})
        assert screen.draft.command()[-2:] == ["--profile", "longest context"]
        # Going back and forth reads the data no second time.
        await pilot.press("escape")
        await until(pilot, lambda: screen.step == "plan" and screen.query_one(PlanStep).board)
        assert screen.query_one(PlanStep).board.cursor == 1
        await pilot.press("enter")
        await until(pilot, lambda: screen.step == "settings")
    assert engine.gathered == 1


async def test_what_is_moved_on_the_plan_is_marked_in_the_settings_and_the_rest_stays(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "plan")
        await pilot.press("s", "right", "enter")  # the rank of the first profile
        await until(pilot, lambda: screen.step == "settings" and "* rank" in screen_text(app))
        assert screen.draft.overrides == {"method.rank": 64}
        assert "your choice; proposed was 32" in screen_text(app)
        spec = screen.draft.proposal.spec
        assert (spec.method.kind, spec.data.sequence_length, spec.train.micro_batch) == ("qlora", 2048, 2)
        words = screen.draft.command()
        assert "--profile" not in words
        assert {"method.kind=qlora", "method.rank=64", "train.micro_batch=2"} <= set(words)
        assert len([word for word in words if word.startswith("method.rank")]) == 1


async def test_enter_before_the_plan_is_there_takes_the_best_one_when_it_is(engine: FakeEngine) -> None:
    engine.plan_hold = threading.Event()
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "data")
        await pilot.press("enter")
        await until(pilot, lambda: screen.step == "plan")
        await pilot.press("enter")
        assert screen.step == "plan"
        engine.plan_hold.set()
        await until(pilot, lambda: screen.step == "settings")


async def test_each_level_of_the_seal_has_a_letter_and_none_is_taken_by_enter(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "review")
        await until(pilot, lambda: "best: all three layers hold here" in screen_text(app))
        await pilot.press("p")
        await until(pilot, lambda: "How is the trainer to be sealed?" in screen_text(app))
        await pilot.press("enter")
        assert app.screen is not screen
        await pilot.press("escape")
        assert app.screen is screen
        assert screen.draft.seal == "best" and not engine.launched
        await pilot.press("p", "o")
        await until(pilot, lambda: "off: nothing keeps the trainer" in screen_text(app))
        assert screen.draft.command()[-2:] == ["--seal", "off"]
        await pilot.press("p", "r")
        await until(pilot, lambda: "required: all three layers hold here" in screen_text(app))
        await pilot.press("p", "b")
        await until(pilot, lambda: "best: all three layers hold here" in screen_text(app))
        await pilot.press("p", "o")
        await until(pilot, lambda: "off: nothing keeps the trainer" in screen_text(app))
        assert screen.step == "review"
        await pilot.press("enter")
        await until(pilot, lambda: app.opened)
    assert engine.launched[0].privacy.seal == "off"


async def test_the_seal_is_a_setting_that_says_what_it_means_here(engine: FakeEngine) -> None:
    engine.ability = WITHOUT_NAMESPACE
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "settings")
        await pilot.press("G", "left")
        await until(pilot, lambda: "cannot train here: no namespace (AppArmor lets" in screen_text(app))
        assert "seal required" in screen_text(app)
        await pilot.press("e", *["backspace"] * 8, *"off", "enter")
        await until(pilot, lambda: "Train without the seal?" in screen_text(app))
        await pilot.press("o")
        await until(pilot, lambda: screen.draft.proposal.spec.privacy.seal == "off")
        await pilot.press("r")
        await until(pilot, lambda: "landlock and seccomp hold here; no namespace (AppArmor" in screen_text(app))
        assert "best         landlock, seccomp; no namespace " in screen_text(app)  # in the table, in few words
        assert "privacy.seal" not in screen.draft.overrides


async def test_no_run_is_made_whose_seal_is_required_and_cannot_hold(engine: FakeEngine) -> None:
    engine.ability = WITHOUT_NAMESPACE
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach(pilot, "review")
        await pilot.press("p")
        await until(pilot, lambda: "r required: cannot train here: no namespace" in screen_text(app))
        await pilot.press("r")
        await until(pilot, lambda: "required: cannot train here: no namespace (" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: "layers that hold here: p, then" in screen_text(app))
        assert not engine.launched
        await pilot.press("p", "b", "enter")
        await until(pilot, lambda: app.opened)
    assert engine.launched[0].privacy.seal == "best"


async def test_esc_backs_out_one_step_at_a_time(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "review")
        for step in ("settings", "plan", "data", "model"):
            await pilot.press("escape")
            assert screen.step == step
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not screen)


async def test_an_unusable_model_is_told_of_and_goes_nowhere(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "model")
        await pilot.press("j", "enter")
        await until(pilot, lambda: "holds only GGUF files" in screen_text(app))
        assert "fix: Choose the original model" in screen_text(app)
        assert screen.step == "model"


async def test_unusable_data_is_told_of_and_goes_nowhere(engine: FakeEngine) -> None:
    app = start(engine)
    assert engine.row_file is not None
    engine.row_file.write_text("\n".join([json.dumps(ROWS[0])] * 8 + ['{"messages": []}', "{broken"]))
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await reach(pilot, "data")
        await pilot.press("enter")
        await until(pilot, lambda: "2 of 10 rows" in screen_text(app))
        assert "line 9 has no messages" in screen_text(app)
        assert screen.step == "data"
        # Mended meanwhile: Enter looks again.
        engine.row_file.write_text("\n".join(map(json.dumps, ROWS)))
        await pilot.press("enter")
        await until(pilot, lambda: screen.step == "plan")


async def test_what_the_readers_of_a_file_and_of_what_is_held_out_beside_it_tried_is_told_first(
    engine: FakeEngine, tmp_path: Path
) -> None:
    for name in ("train.jsonl", "valid.jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, ROWS)))
        engine.tried[name] = f"What reads data tried to reach a network once, and was refused: connect, in {name}"
    engine.row_file, engine.files = None, [Place(tmp_path / "train.jsonl", "train.jsonl", "used before")]
    app = start(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        await reach(pilot, "data")
        shown = " ".join(screen_text(app).split())
        assert all(name in shown for name in engine.tried) and shown.count("✗ What reads data tried") == 2
        assert shown.index("tried to reach") < shown.index("conversations")


async def test_a_path_is_typed_completed_and_chosen(engine: FakeEngine, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "shelf" / "Qwen-tiny"
    model.mkdir(parents=True)
    (model / "config.json").touch()
    (tmp_path / "shelf" / "readme.txt").touch()
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "model")
        await pilot.press("full_stop", *"sh")
        await until(pilot, lambda: "shelf/" in screen_text(app))
        await pilot.press("tab")
        await until(pilot, lambda: "Qwen-tiny/" in screen_text(app))
        assert "readme.txt" not in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: screen.step == "data")
    assert screen.draft.model == model


@pytest.mark.parametrize("key", ["enter", "tab"])
async def test_a_key_waits_for_the_list_of_what_is_typed(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    model = tmp_path / "Qwen-tiny"
    model.mkdir()
    (model / "config.json").touch()
    may_read = threading.Event()
    monkeypatch.setattr(path_picker, "completions", lambda *of: may_read.wait(HOLD_SECONDS) and completions(*of))
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "model")
        await pilot.press("slash", *f"{tmp_path}/Qw", key)
        assert screen.draft.model is None and screen.query_one(PathPicker).line.value == f"{tmp_path}/Qw"
        may_read.set()
        if key == "enter":
            await until(pilot, lambda: screen.step == "data")
            assert screen.draft.model == model
        else:
            await until(pilot, lambda: screen.query_one(PathPicker).line.value == f"{model}/")


async def test_whoever_goes_back_while_something_is_read_stays_there(engine: FakeEngine) -> None:
    engine.plan_hold = threading.Event()
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "data")
        await pilot.press("enter")
        await until(pilot, lambda: screen.step == "plan")
        await pilot.press("enter", "escape")  # to the next step once the plan is there, and then back
        picker = app.focused
        engine.plan_hold.set()
        await until(pilot, lambda: screen.query_one(PlanStep).board)
        assert (screen.step, app.focused) == ("data", picker)


async def test_letters_filter_the_list(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach(pilot, "model")
        await press_at_once(pilot, "slash", *"brok")
        await until(pilot, lambda: "Llama-small" not in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "Llama-small" in screen_text(app))


async def test_several_files_train_and_one_is_held_out(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "data")
        for row, key in enumerate(("space", "space", "o")):
            await until(pilot, lambda: "characters" in screen_text(app))
            await pilot.press(*["g", *["j"] * row])
            await until(pilot, lambda: screen.query_one("#data").found(engine.files[row].path))  # noqa: B023
            await pilot.press(key)
        assert "check.jsonl" in screen_text(app).splitlines()[-2]
        await pilot.press("enter", "enter")
        await until(pilot, lambda: screen.draft.proposal)
    spec = screen.draft.proposal.spec
    assert spec.data.paths == (DATA / "intake.jsonl", DATA / "more.jsonl")
    assert spec.data.held_out.path == DATA / "check.jsonl"


async def test_a_changed_value_reaches_the_run_the_command_and_the_price(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "settings")
        assert "adapters 2.0 MiB" in screen_text(app)
        await pilot.press("j", "right", "l")
        await until(pilot, lambda: "adapters 8.0 MiB" in screen_text(app))
        assert "your choice; proposed was 16" in screen_text(app)
        await pilot.press("j", "j", "j")
        await press_at_once(pilot, *"1.5", "enter")
        await until(pilot, lambda: screen.draft.overrides == {"method.rank": 64, "train.epochs": 1.5})
        await pilot.press("j", "j", "right", "r")
        await pilot.press("enter")
        await until(pilot, lambda: screen.step == "review")
        await press_at_once(pilot, "y", "n", *"-2", "enter")
        await until(pilot, lambda: screen.draft.name == "intake-2")
        await pilot.press("enter")
        await until(pilot, lambda: app.opened)
    (spec,) = engine.launched
    assert (spec.name, spec.method.rank, spec.train.epochs, spec.schedule.kind) == ("intake-2", 64, 1.5, "cosine")
    assert app.copied[0].endswith("--set method.rank=64 --set train.epochs=1.5")


async def test_an_invalid_value_is_refused_in_place_with_the_reason(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "settings")
        # Refused by the setting itself,
        await pilot.press("j", "0", "enter")
        await until(pilot, lambda: "rank is 0; should be greater than or equal to 1" in screen_text(app))
        await pilot.press("escape")
        assert screen.step == "settings"
        # and by what the model can do.
        await pilot.press("j", "j", *"4096", "enter")
        await until(pilot, lambda: "at most 2,048 tokens" in screen_text(app))
        assert screen.draft.overrides == {}
        assert "512 tokens" in screen_text(app)


async def test_changes_are_kept_while_going_back_and_forth(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "settings")
        await pilot.press("j", "right")
        await until(pilot, lambda: "adapters 4.0 MiB" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "changed by you" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: screen.step == "settings" and "adapters 4.0 MiB" in screen_text(app))
        assert "your choice" in screen_text(app)
        # A change that the model cannot take is left out, with the reason, and the others stay.
        screen.draft.overrides["data.sequence_length"] = 65536
        await pilot.press("escape")
        await until(pilot, lambda: "the model's context is 40,960" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: screen.step == "settings" and "adapters 4.0 MiB" in screen_text(app))
        assert screen.draft.overrides == {"method.rank": 32}


async def test_the_latest_change_wins_whatever_order_the_prices_come_in(engine: FakeEngine) -> None:
    engine.hold[32] = threading.Event()
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "settings")
        await pilot.press("j", "right")
        await until(pilot, lambda: {"method.rank": 32} in engine.asked)
        await pilot.press("right")
        await until(pilot, lambda: "adapters 8.0 MiB" in screen_text(app))
        engine.hold[32].set()
        await pilot.press("enter")
        await until(pilot, lambda: screen.step == "review")
        assert screen.draft.proposal.spec.method.rank == 64
        assert "adapters 8.0 MiB" in screen_text(app)


async def test_enter_waits_for_the_price_of_the_last_change(engine: FakeEngine) -> None:
    engine.hold[32] = threading.Event()
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reach(pilot, "settings")
        await pilot.press("j", "right", "enter")
        await until(pilot, lambda: {"method.rank": 32} in engine.asked)
        assert screen.step == "settings"
        engine.hold[32].set()
        await until(pilot, lambda: screen.step == "review")
        assert screen.draft.proposal.spec.method.rank == 32


async def test_a_launch_that_fails_says_why_and_can_be_tried_again(engine: FakeEngine) -> None:
    engine.launch_problem = Problem("/srv/runs", "No space left on device", "Free some space there.")
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach(pilot, "review")
        await pilot.press("enter")
        await until(pilot, lambda: "No space left on device" in screen_text(app))
        assert "fix: Free some space there." in screen_text(app)
        engine.launch_problem = None
        await pilot.press("enter")
        await until(pilot, lambda: app.opened)


async def test_a_run_that_would_not_outlive_the_log_in_is_told_before_it_starts(engine: FakeEngine) -> None:
    engine.cautions = [Caution("Systemd ends a session's processes here.", "Run `loginctl enable-linger` once.")]
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach(pilot, "review")
        words = "mind Systemd ends a session's processes here. Run `loginctl enable-linger` once."
        await until(pilot, lambda: words in " ".join(screen_text(app).split()))
        await pilot.press("enter")
        await until(pilot, lambda: app.opened)


BOB = Holder("python", "bob", 977, 6 * GIB)


@pytest.mark.parametrize(("key", "waited"), [("enter", [False]), ("w", [True])])
async def test_memory_that_was_taken_meanwhile_is_told_and_waited_for(engine: FakeEngine, key: str, waited) -> None:
    engine.room = Room("GPU 0", 8 * GIB, 3 * GIB, 2 * GIB, 24 * GIB, (BOB,))
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach(pilot, "review")
        assert "w wait" not in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: "python (bob, pid 977) holds 6.0 GiB" in " ".join(screen_text(app).split()))
        assert engine.launched == []
        assert "w wait" in screen_text(app).splitlines()[-1]
        await pilot.press(key)
        await until(pilot, lambda: app.opened)
    assert engine.waited == waited


async def test_taken_memory_can_be_planned_with_anew(engine: FakeEngine) -> None:
    engine.room = Room("GPU 0", 80 * GIB, 3 * GIB, 2 * GIB, 24 * GIB, (BOB,))
    app = start(engine)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await reach(pilot, "review")
        await pilot.press("enter")
        await until(pilot, lambda: "d next profile" in screen_text(app))
        # More than the machine has: to wait for it would be to wait for ever.
        await pilot.press("w")
        await until(pilot, lambda: "this machine never has as much" in screen_text(app))
        engine.planner.others_bytes = 12 * GIB
        await pilot.press("d")
        await until(pilot, lambda: screen.step == "plan" and "12.0 of 24.0 GiB free" in screen_text(app))
        assert engine.gathered == 2
        assert "does not fit: 16" in screen_text(app)


async def test_an_impossible_name_is_refused(engine: FakeEngine) -> None:
    app = start(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await reach(pilot, "review")
        await pilot.press("n", *"/x", "enter")
        await until(pilot, lambda: "Up to 64 letters" in screen_text(app))
        await pilot.press("escape", "enter")
        await until(pilot, lambda: app.opened)
    assert engine.launched[0].name == "intake"


def test_every_value_offered_is_valid_and_can_be_typed() -> None:
    spec = parse_spec({"name": "n", "model": {"path": "m"}, "data": {"train": ["d"]}}, "test")
    for setting in SETTINGS:
        for value in setting.ladder:
            check(spec, setting, value)
            assert setting.parse(setting.show(value)) == value, setting.label
        value = setting.value(spec)
        assert setting.step(setting.step(value, 1), -1) == value or value not in setting.ladder, setting.label


def test_the_command_repeats_the_choice() -> None:
    screen = NewRunScreen(FakeEngine().sources())
    screen.draft.model, screen.draft.name = Path("/m y"), "n"
    screen.draft.take_data(DataChoice((SourceSection(path=Path("/a")), SourceSection(path=Path("/b")))))
    screen.draft.overrides |= {"data.packing": False, "optimizer.learning_rate": 1e-5, "method.kind": "full"}
    words = screen.draft.command()
    assert words[:10] == ["finetui", "train", "--model", "/m y", "--data", "/a", "--data", "/b", "--name", "n"]
    assigned = dict(word.split("=") for word in words[11::2])
    assert tomllib.loads(f"x = {assigned['data.packing']}") == {"x": False}
    assert tomllib.loads(f"x = {assigned['optimizer.learning_rate']}") == {"x": 1e-5}
    assert assigned["method.kind"] == "full"
    assert "'/m y'" in screen.draft.command_text()


def test_the_command_says_how_a_file_is_read() -> None:
    screen = NewRunScreen(FakeEngine().sources())
    screen.draft.model = Path("/m")
    read_so = SourceSection(path=Path("/a.csv"), shape="pair", columns={"question": 'the "ask"'}, weight=2.0)
    choice = DataChoice((read_so, SourceSection(path=Path("/b"))), None, {"data.rows": 200})
    screen.draft.take_data(choice)
    assigned = dict(word.split("=", 1) for word in screen.draft.command() if word.startswith("data."))
    values = {"train": tomllib.loads(f"x = {assigned['data.train']}")["x"], "rows": int(assigned["data.rows"])}
    spec = parse_spec({"name": "n", "model": {"path": "/m"}, "data": values}, "test")
    assert spec.data.train == choice.sources and spec.data.rows == 200


def test_what_was_said_of_the_data_is_what_the_run_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    for name in ("a", "b", "held"):
        (tmp_path / f"{name}.csv").write_text("ask,say\n" + "".join(f"{n}?,{name}{n}\n" for n in range(8)))
    read_so = {"shape": "pair", "columns": {"question": "ask", "answer": "say"}}
    train = (
        SourceSection(path=tmp_path / "a.csv", weight=3.0, **read_so),
        SourceSection(path=tmp_path / "b.csv", weight=2.0, **read_so),
    )
    held_out = SourceSection(path=tmp_path / "held.csv", **read_so)
    draft, sources = Draft(model=MODEL_DIRECTORY), Sources()
    draft.take_data(DataChoice(train, held_out, {"data.duplicates": "drop_exact"}))
    draft.gathered = sources.gather(draft)
    spec = sources.propose(draft).spec
    assert spec.data.train == train and spec.data.held_out == held_out and spec.data.duplicates == "drop_exact"


def test_models_are_found_where_people_keep_them(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "work"
    hub = home / ".cache/huggingface/hub/models--Qwen--Qwen3-0.6B/snapshots"
    for folder in (home / "models/Mistral", here / "mine", hub / "abc", here / "empty", tmp_path / "former"):
        folder.mkdir(parents=True)
        if folder.name != "empty":
            (folder / "config.json").touch()
    former = parse_spec({"name": "n", "model": {"path": str(tmp_path / "former")}, "data": {"train": ["d"]}}, "t")
    gone = parse_spec({"name": "n", "model": {"path": "/no/such"}, "data": {"train": ["d"]}}, "t")
    found = model_places([former, gone, former], {"HOME": str(home)}, here)
    names = [(place.group, place.label) for place in found if place.path != MODEL_DIRECTORY]
    assert names == [
        ("used before", "former"),
        ("~/models", "Mistral"),
        ("this folder", "mine"),
        ("Hugging Face cache", "Qwen/Qwen3-0.6B"),
    ]
    elsewhere = model_places([], {"HOME": "/nowhere", "HF_HOME": str(home / ".cache/huggingface")}, tmp_path)
    assert "Qwen/Qwen3-0.6B" in [place.label for place in elsewhere]


def test_data_is_found_with_what_is_held_out_beside_it(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.held-out.jsonl", "b.jsonl", "train.jsonl", "val.jsonl", "notes.txt"):
        (tmp_path / name).touch()
    for name in ("disk/data/parts/one.parquet", "disk/data/notes.txt", "disk/x.csv.gz", "disk/photo.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [place.label for place in data_places([], {"HOME": "/nowhere"}, tmp_path)]
    assert found[-5:] == ["a.held-out.jsonl", "a.jsonl", "b.jsonl", "train.jsonl", "val.jsonl"]
    mounted = [place.label for place in data_places([], {"HOME": "/nowhere"}, tmp_path, [tmp_path / "disk"])]
    assert mounted[-3:] == ["x.csv.gz", "notes.txt", "parts/"]
    beside = {name: held_out_beside(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "train.jsonl")}
    assert beside == {"a.jsonl": tmp_path / "a.held-out.jsonl", "b.jsonl": None, "train.jsonl": tmp_path / "val.jsonl"}


def test_completions_offer_what_the_step_can_use(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "data.jsonl").touch()
    (tmp_path / "model.safetensors").touch()
    (tmp_path / ".hidden").mkdir()
    assert [place.label for place in completions(f"{tmp_path}/", "data")] == ["this folder", "data.jsonl", "deep/"]
    assert [place.label for place in completions(f"{tmp_path}/", "model")] == ["this folder", "deep/"]
    assert [place.label for place in completions(f"{tmp_path}/.h", "model")] == [".hidden/"]
    assert completions(f"{tmp_path}/no/such/", "model") == []


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=["80x24", "200x50"])
@pytest.mark.parametrize("step", ["model", "data", "plan", "settings", "review"])
def test_picture(snap_compare, engine: FakeEngine, step: str, size: tuple[int, int]) -> None:
    async def before(pilot) -> None:
        screen = await reach(pilot, step)
        await until(pilot, lambda: screen._ability is not None)
        if step == "plan":
            await until(pilot, lambda: "+0.3 %" in screen_text(pilot.app))

    assert snap_compare(start(engine), terminal_size=size, run_before=before)


def test_picture_of_memory_that_was_taken_meanwhile(snap_compare, engine: FakeEngine) -> None:
    engine.room = Room("GPU 0", 8 * GIB, 3 * GIB, 2 * GIB, 24 * GIB, (BOB,))

    async def ask(pilot) -> None:
        await reach(pilot, "review")
        await pilot.press("enter")
        await until(pilot, lambda: "w wait" in screen_text(pilot.app))

    assert snap_compare(start(engine), terminal_size=(80, 24), run_before=ask)


def test_picture_of_a_value_being_typed_and_refused(snap_compare, engine: FakeEngine) -> None:
    async def refuse(pilot) -> None:
        await reach(pilot, "settings")
        await pilot.press(*["j"] * 5, "2", "enter")
        await until(pilot, lambda: "learning rate is 2.0" in screen_text(pilot.app))

    assert snap_compare(start(engine), terminal_size=(80, 24), run_before=refuse)


def test_picture_of_a_path_being_typed(snap_compare, engine: FakeEngine, tmp_path: Path, monkeypatch) -> None:
    for name in ("models/Llama-small", "models/Llama-large", "music"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models/Llama-small/config.json").touch()
    monkeypatch.setenv("HOME", str(tmp_path))

    async def type_path(pilot) -> None:
        await reach(pilot, "model")
        await pilot.press("tilde", *"mod", "tab")
        await until(pilot, lambda: "Llama-large/" in screen_text(pilot.app))
        await pilot.press("down")
        await until(pilot, lambda: "parameters" in screen_text(pilot.app))

    assert snap_compare(start(engine), terminal_size=(80, 24), run_before=type_path)


def test_picture_of_a_change_that_does_not_fit_in_plain_ascii(snap_compare, engine: FakeEngine) -> None:
    engine.budget_bytes = 640 * 1024**2

    async def change(pilot) -> None:
        screen = await reach(pilot, "settings")
        await pilot.press("j", "right")
        await until(pilot, lambda: "adapters 4.0 MiB" in screen_text(pilot.app))
        assert screen_text(pilot.app).isascii()
        assert screen.step == "settings"

    assert snap_compare(start(engine, PLAIN_TERMINAL), terminal_size=(80, 24), run_before=change)
