"""Chat, driven by its keys alone, with the model behind it replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from screen_fakes import PLAIN_TERMINAL, FakeRun, FakeSession, ScreenApp, press_at_once, screen_text, until
from textual.screen import Screen

from engine.run.creating import create_run
from engine.run.telemetry.journal import JournalWriter
from engine.spec import parse_spec
from profiles.problem import Problem
from tui.screens.chat import ChatScreen
from tui.terminal import Terminal
from tui.widgets.chat.pane import ChatPane
from tui.widgets.chat.samples import HeldOutSample, held_out_samples

QUESTION = "Note 7: Ana Ruiz called about her rash."
SAMPLES = [
    HeldOutSample((("system", "One record, please."), ("user", QUESTION)), '{"name":"Ana Ruiz"}'),
    HeldOutSample((("user", "Note 8: Ole has a cough."),), '{"name":"Ole"}'),
]


def start(session: FakeSession, terminal: Terminal | None = None) -> ScreenApp:
    return ScreenApp(ChatScreen(FakeRun(), lambda run: session, lambda run: SAMPLES), terminal)


async def ready(pilot, session: FakeSession) -> ChatScreen:
    """The model is loaded."""
    session.loading.set()
    await until(pilot, lambda: "tuned model" in screen_text(pilot.app))
    return pilot.app.shown


async def ask(pilot, session: FakeSession, question: str) -> None:
    asked = len(session.questions)
    await pilot.press(*question, "enter")
    await until(pilot, lambda: len(session.questions) > asked)


def pane(app: ScreenApp, side: str) -> ChatPane:
    return app.shown.query_one(f"#{side}", ChatPane)


async def test_both_sides_answer_and_each_remembers_its_own_answers() -> None:
    session = FakeSession()
    app = start(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, session)
        await ask(pilot, session, "who?")
        session.say("base", "the the ")
        session.say("tuned", "Ana", speed=38.0)
        await until(pilot, lambda: "the the" in screen_text(app) and "38 tok/s" in screen_text(app))
        session.say("base", "patient", "stop")
        session.say("tuned", " Ruiz", "stop")
        await until(pilot, lambda: not app.shown.answering)
        assert "Ana Ruiz" in pane(app, "tuned").text
        await ask(pilot, session, "when?")
    assert session.questions[1] == {
        side: [
            {"role": "user", "content": "who?"},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "when?"},
        ]
        for side, answer in (("base", "the the patient"), ("tuned", "Ana Ruiz"))
    }


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
async def test_leaving_ends_the_answer_first_and_the_chat_second(key: str) -> None:
    session = FakeSession()
    app = start(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot, session)
        await ask(pilot, session, "who?")
        session.say("tuned", "Ana R")
        await until(pilot, lambda: "Ana R" in screen_text(app))
        await pilot.press(key)
        assert (session.cancelled, app.screen) == (1, screen)
        session.say("tuned", "", "cancelled")
        session.say("base", "", "cancelled")
        await until(pilot, lambda: not screen.answering)
        # What was said of an answer is kept; a question that got nothing is not, or a template may refuse the next.
        assert [message["role"] for message in screen.talk.messages["tuned"]] == ["user", "assistant"]
        assert screen.talk.messages["base"] == []
        await pilot.press(key)
        await until(pilot, lambda: app.screen is not screen and session.closed)


@pytest.mark.parametrize(("opening", "key"), [("", "ctrl+c"), ("ctrl+g", "enter"), ("ctrl+o", "enter")])
async def test_a_key_that_repeats_closes_no_more_than_what_it_was_pressed_in(opening: str, key: str) -> None:
    session = FakeSession()
    app = start(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot, session)
        if opening:
            await pilot.press(opening)
            await until(pilot, lambda: app.screen is not screen)
        left = app.screen_stack[-2]
        await press_at_once(pilot, key, key)
        assert app.screen is left and app.is_running


async def test_a_held_out_row_is_asked_and_compared() -> None:
    session = FakeSession()
    app = start(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, session)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "Ole has a cough" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: session.questions)
        session.say("base", "the rash", "stop")
        session.say("tuned", '{"name":"Ana Ruiz"}\n', "stop")
        await until(pilot, lambda: not app.shown.answering)
        assert "the expected answer" in pane(app, "tuned").text.splitlines()[-1]
        assert pane(app, "base").text.splitlines()[-2:] == [
            "✗ not the expected answer, which is",
            '{"name":"Ana Ruiz"}',
        ]
    assert session.questions[0]["base"] == [
        {"role": "system", "content": "One record, please."},
        {"role": "user", "content": QUESTION},
    ]


async def test_sides_and_sampling_reach_the_model_and_a_new_conversation_forgets() -> None:
    session = FakeSession()
    app = start(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, session)
        await pilot.press("ctrl+t")
        assert "base model" not in screen_text(app)
        await pilot.press("ctrl+g", *"7", "enter")
        await until(pilot, lambda: "from 0 to 5" in screen_text(app))
        await pilot.press("backspace", *"0.7", "tab", *"64", "enter")
        await until(pilot, lambda: "temperature 0.7" in screen_text(app))
        await ask(pilot, session, "who?")
        session.say("tuned", "Ana", "length", tokens=64)
        await until(pilot, lambda: "cut at 64 tokens" in screen_text(app))
        await pilot.press("ctrl+n")
        assert pane(app, "tuned").text == ""
        await ask(pilot, session, "when?")
    assert [list(each) for each in session.questions] == [["tuned"], ["tuned"]]
    assert session.questions[1]["tuned"] == [{"role": "user", "content": "when?"}]
    assert session.options[0] == {"max_new_tokens": 64, "temperature": 0.7}


async def test_a_question_typed_while_the_model_loads_is_asked_when_it_is_there() -> None:
    session = FakeSession()
    app = start(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "loading the base model" in screen_text(app))
        await pilot.press(*"who?", "enter")
        assert session.questions == []
        await ready(pilot, session)
        await until(pilot, lambda: session.questions)
    assert session.questions[0]["tuned"][-1]["content"] == "who?"


async def test_a_model_that_cannot_be_loaded_says_why_and_can_be_left() -> None:
    session = FakeSession(Problem("the run intake", "has no adapter yet", "Wait until it has finished."))
    session.loading.set()
    app = start(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "has no adapter yet" in screen_text(app))
        assert "fix: Wait until it has finished." in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not app.shown)


async def test_a_refused_question_is_told_of_and_forgotten() -> None:
    session = FakeSession()
    app = start(session)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot, session)
        await ask(pilot, session, "long?")
        session.fail(Problem("the conversation", "is 2,000 tokens", "Start a new conversation."))
        await until(pilot, lambda: "is 2,000 tokens" in screen_text(app))
        assert screen.talk.messages == {"base": [], "tuned": []}
        await ask(pilot, session, "short?")
        assert "is 2,000 tokens" not in screen_text(app)
        # What had arrived of an answer is kept, be it drawn by then or not.
        session.say("tuned", "Ana", "stop")
        session.fail(Problem("the base model", "is gone", "Begin anew."))
        await until(pilot, lambda: "is gone" in screen_text(app))
        assert [message["content"] for message in screen.talk.messages["tuned"]] == ["short?", "Ana"]
        assert screen.talk.messages["base"] == []


async def test_a_long_answer_is_followed_until_it_is_scrolled_away_from() -> None:
    session = FakeSession()
    app = start(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, session)
        await ask(pilot, session, "go")
        for line in range(60):
            session.say("tuned", f"line {line}\n")
        await until(pilot, lambda: "line 59" in screen_text(app))
        await pilot.press("pageup")
        await until(pilot, lambda: "line 59" not in screen_text(app))
        session.say("tuned", "the end", "stop")
        await until(pilot, lambda: "the end" in pane(app, "tuned").text)
        assert "the end" not in screen_text(app)
        await pilot.press("pagedown", "pagedown", "pagedown")
        await until(pilot, lambda: "the end" in screen_text(app))


async def test_an_answer_cannot_write_control_characters_and_up_brings_back_a_question() -> None:
    session = FakeSession()
    app = start(session)
    async with app.run_test(size=(60, 20)) as pilot:
        await ready(pilot, session)
        await ask(pilot, session, "who?")
        session.say("tuned", "\x1b[2Jgone\x07 日本", "stop")
        session.say("base", "", "stop")
        await until(pilot, lambda: "日本" in screen_text(app))
        assert "\\x1b[2Jgone\\x07" in screen_text(app)
        await pilot.press("up")
        assert app.shown.query_one("#prompt").value == "who?"


# Without shrinking: every example starts an app, and these are small anyway.
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(st.text(alphabet="ab é日\n", max_size=30), max_size=12), st.integers(4, 40))
async def test_text_that_streams_in_is_wrapped_like_text_that_was_there(pieces: list[str], width: int) -> None:
    streamed, whole = ChatPane(), ChatPane()
    async with ScreenApp(Screen()).run_test(size=(width, 24)) as pilot:
        await pilot.app.screen.mount(streamed, whole)
        await pilot.pause()
        for each in (streamed, whole):
            each.ask("?")
        for piece in pieces:
            streamed.extend(piece)
        whole.extend("".join(pieces))
        assert streamed.rows == whole.rows
        assert all(cell_len(row) <= width for row in whole.rows)
        assert "".join("".join(whole.rows).split()) == "?" + "".join("".join(pieces).split())


def test_held_out_rows_come_from_the_file_or_else_from_the_run_itself(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    rows = tmp_path / "held.jsonl"
    row = {"messages": [{"role": role, "content": role} for role in ("system", "user", "assistant")]}
    rows.write_text("\n".join([json.dumps(row), "{broken", json.dumps({"text": "no answer"}), json.dumps(row)]))
    values = {"name": "n", "model": {"path": "/m"}, "data": {"train": ["/d"], "held_out": str(rows)}}
    samples = held_out_samples(create_run(parse_spec(values, "test")))
    assert samples == [HeldOutSample((("system", "system"), ("user", "user")), "assistant")] * 2

    del values["data"]["held_out"]
    run = create_run(parse_spec(values, "test"))
    with pytest.raises(Problem, match="no answered held-out rows"):
        held_out_samples(run)
    JournalWriter(run.events_path).append("sample", index=0, prompt="who?", expected="Ana", base="the", tuned="Ana")
    assert held_out_samples(run) == [HeldOutSample((("user", "who?"),), "Ana")]


ANSWER = (
    "Thank you for the note. Here is the record:\n\n"
    '{"name":"Ana Ruiz","complaint":"rash","where":"left arm","fever":false}\n\nAnything else?'
)


@pytest.mark.parametrize(
    ("size", "terminal"),
    [((80, 24), Terminal()), ((200, 50), Terminal()), ((60, 20), Terminal()), ((80, 24), PLAIN_TERMINAL)],
    ids=["80x24", "200x50", "60x20", "plain"],
)
def test_picture(snap_compare, size: tuple[int, int], terminal: Terminal) -> None:
    session = FakeSession()

    async def talk(pilot) -> None:
        await ready(pilot, session)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "Ole has a cough" in screen_text(pilot.app))
        await pilot.press("enter")
        await until(pilot, lambda: session.questions)
        session.say("base", "the rash of the the patient", "length", tokens=512, speed=41.0)
        session.say("tuned", ANSWER, "stop", speed=38.6)
        await until(pilot, lambda: not pilot.app.shown.answering)
        assert screen_text(pilot.app).isascii() or not terminal.ascii

    assert snap_compare(start(session, terminal), terminal_size=size, run_before=talk)


def test_picture_of_choosing_a_held_out_row(snap_compare) -> None:
    session = FakeSession()

    async def choose(pilot) -> None:
        await ready(pilot, session)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "Ole has a cough" in screen_text(pilot.app))

    assert snap_compare(start(session), terminal_size=(80, 24), run_before=choose)
