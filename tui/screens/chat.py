"""Chat: ask the base and the tuned model the same, side by side."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import Input, Static
from textual.worker import get_current_worker

from profiles.problem import Problem, printable
from tui.format import count_text, rate_text
from tui.keys import Key, KeyedScreen
from tui.telling import tell
from tui.theme import Look, look_of
from tui.widgets.chat.pane import ChatPane
from tui.widgets.chat.prompt import PromptLine
from tui.widgets.chat.samples import HeldOutSample, SamplePicker, held_out_samples
from tui.widgets.chat.sampling import SamplingDialog
from tui.widgets.chat.talk import CHOICES, SIDES, Sampling, Talk
from tui.widgets.key_bar import KeyBar
from tui.widgets.lines import Lines
from tui.widgets.new_run.text import drawable, problem_text
from tui.widgets.painted import spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.run.directory import RunDirectory
    from engine.serve.session import ChatModel, Chunk, SideName

# What streams in is drawn this often: faster costs bytes over SSH and reads no better.
DRAWS_PER_SECOND = 8
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
NARROW_COLUMNS = 72
"""Below this the sides stand one above the other."""


class Session(Protocol):
    """What the screen needs of engine.serve.session.ChatSession. `start` and the answers block."""

    def start(self, progress: Callable[[str], None]) -> ChatModel: ...

    def ask(
        self,
        messages_by_side: Mapping[SideName, Sequence[Mapping[str, str]]],
        max_new_tokens: int,
        temperature: float,
    ) -> Iterator[Chunk]: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


def _open_session(run: RunDirectory) -> Session:
    from engine.serve.session import ChatSession

    return ChatSession(run)


class ChatScreen(KeyedScreen):
    """`open_session` and `read_samples` stand between it and the engine."""

    TITLE_WORD = "Chat"
    KEYS = (
        Key("enter", "ask", "ask", "Ask what was typed. Up brings back earlier questions.", palette=False),
        Key("escape,ctrl+c", "back", "back", "End the answers being given; with none, leave."),
        Key("ctrl+o", "sample", "sample", "Ask a held-out row and compare with the answer it should get."),
        Key("ctrl+t", "sides", "sides", "Let both answer, only the tuned model, or only the base model."),
        Key("ctrl+g", "sampling", "settings", "Set the temperature and the longest answer."),
        Key("ctrl+n", "forget", "new", "Forget the conversation and begin anew."),
        Key("pageup", "page_up", "up", "Scroll the conversation up.", footer=False, palette=False),
        Key("pagedown", "page_down", "down", "Scroll the conversation down.", footer=False, palette=False),
    )
    CSS = """
    ChatScreen #title { height: 1; margin-bottom: 1; }
    ChatScreen #loading { height: 1fr; padding: 0 1; }
    ChatScreen #sides { height: 1fr; display: none; }
    ChatScreen .side { width: 1fr; height: 1fr; padding: 0 1; }
    ChatScreen .side Lines { height: 1; padding: 0; margin-bottom: 1; }
    ChatScreen #tuned-side { border-left: solid $border-blurred; }
    ChatScreen #tuned-side.-alone { border-left: none; }
    ChatScreen.-ascii #tuned-side { border-left: ascii $border-blurred; }
    ChatScreen.-ascii #tuned-side.-alone { border-left: none; }
    ChatScreen.-narrow #sides { layout: vertical; }
    ChatScreen.-narrow #tuned-side { border-left: none; }
    ChatScreen.-narrow .side Lines { margin-bottom: 0; }
    ChatScreen #notice { height: auto; max-height: 5; padding: 0 1; }
    ChatScreen #prompt-row { height: 1; margin-top: 1; padding: 0 1; }
    ChatScreen #prompt-mark { width: 2; }
    """

    def __init__(
        self,
        run: RunDirectory,
        open_session: Callable[[RunDirectory], Session] = _open_session,
        read_samples: Callable[[RunDirectory], list[HeldOutSample]] = held_out_samples,
    ):
        super().__init__()
        self.chat_run = run
        self._session = open_session(run)
        self._read_samples = read_samples
        self.talk = Talk()
        self.sampling = Sampling()
        self._choice = 0
        self._model: ChatModel | None = None
        self._failed = False
        self._waiting: HeldOutSample | None = None
        self._samples: list[HeldOutSample] | None = None
        self._loaded: list[str] = []
        self._arrived: deque[Chunk] = deque()
        self._speeds: dict[SideName, float | None] = dict.fromkeys(SIDES)
        self._drawing: Timer | None = None
        self._ask_number = 0

    def compose(self) -> ComposeResult:
        yield Lines(self._title_line, id="title")
        yield Static(id="loading")
        with Horizontal(id="sides"):
            for side in SIDES:
                with Vertical(id=f"{side}-side", classes="side"):
                    yield Lines(partial(self._side_line, side), id=f"{side}-title")
                    yield ChatPane(id=side)
        yield Static(id="notice")
        with Horizontal(id="prompt-row"):
            yield Static(id="prompt-mark")
            yield PromptLine(id="prompt")
        yield KeyBar()

    def on_mount(self) -> None:
        self.set_class(self.look.ascii, "-ascii")
        self.query_one("#prompt-mark", Static).update(Text(self.look.glyph("› ", "> "), style=self.look.accent))
        self._drawing = self.set_interval(1 / DRAWS_PER_SECOND, self._draw, pause=True)
        self._notice(Text())
        self._show_sides()
        self.query_one(PromptLine).focus()
        self._progress("opening the run")
        self._load()

    def on_unmount(self) -> None:
        # Ending the child may take seconds; nobody needs to see it.
        threading.Thread(target=self._session.close, name="close chat").start()

    def on_resize(self) -> None:
        self.set_class(self.size.width < NARROW_COLUMNS, "-narrow")

    @property
    def look(self) -> Look:
        return look_of(self.query_one(KeyBar))

    @property
    def sides(self) -> tuple[SideName, ...]:
        """Who answers."""
        return CHOICES[self._choice]

    @property
    def answering(self) -> bool:
        return bool(self.talk.answers)

    def why_not(self, name: str) -> str | None:
        if name in ("sides", "forget") and self.answering:
            return "wait for the answer, or Esc"
        if name == "sample" and self._failed:
            return "no model"
        return None

    # Loading

    @work(thread=True, group="load")
    def _load(self) -> None:
        try:
            model = self._session.start(lambda detail: tell(self._progress, detail))
        except Problem as problem:
            tell(self._refused, problem)
        else:
            tell(self._ready, model)

    def _progress(self, detail: str) -> None:
        look = self.look
        self._loaded.append(detail)
        done = look.glyph("✓", "+")
        lines = [Text.assemble((f"{done} ", look.good), (drawable(each, look), look.dim)) for each in self._loaded[:-1]]
        now = f"{look.glyph('◐', 'o')} {drawable(detail, look)} {look.ellipsis}"
        lines.append(Text(now, style=look.accent))
        self.query_one("#loading", Static).update(Text("\n").join(lines))

    def _ready(self, model: ChatModel) -> None:
        self._model = model
        self.query_one("#loading").display = False
        self.query_one("#sides").display = True
        self.query_one("#title", Lines).repaint()
        if not model.has_template:
            self._notice(Text("The model has no chat template: it continues your text.", style=self.look.dim))
        if self._waiting is not None:
            self._ask(self._waiting)

    def _refused(self, problem: Problem) -> None:
        self._draw()  # what arrived before counts, be it drawn by then or not
        self._failed = self._failed or self._model is None
        self.talk.give_up()
        self._stop_drawing()
        told = problem_text(problem, self.look)
        if self._model is None:
            self.query_one("#loading", Static).update(told)
        else:
            self._notice(told)
        self.query_one(KeyBar).repaint()

    # Asking and answering

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.do_ask()

    def do_ask(self) -> None:
        if self.answering:
            self._notice(Text("The answer is still coming; Esc ends it.", style=self.look.warn))
            return
        question = self.query_one(PromptLine).take()
        if question:
            self._ask(HeldOutSample((("user", question),), ""))

    def _ask(self, asked: HeldOutSample) -> None:
        if self._model is None:
            self._waiting = asked
            self._notice(Text(f"asked when the model is there: {self._brief(asked)}", style=self.look.dim))
            return
        self._waiting = None
        self._notice(Text())
        self.talk.expected = asked.expected or None
        messages = self.talk.ask(self.sides, [{"role": role, "content": content} for role, content in asked.messages])
        for side in self.sides:
            self.query_one(f"#{side}", ChatPane).ask(asked.question)
            self._speeds[side] = None
        self._ask_number += 1
        self._arrived.clear()
        assert self._drawing is not None
        self._drawing.resume()
        self._repaint_titles()
        self._stream(self._ask_number, messages, self.sampling)

    @work(thread=True, group="answer")
    def _stream(self, number: int, messages: dict[SideName, list[dict[str, str]]], sampling: Sampling) -> None:
        worker = get_current_worker()
        try:
            answers = self._session.ask(
                messages, max_new_tokens=sampling.max_new_tokens, temperature=sampling.temperature
            )
            for chunk in answers:
                if number != self._ask_number or worker.is_cancelled:
                    return
                self._arrived.append(chunk)
        except Problem as problem:
            tell(self._refused, problem)

    def _draw(self) -> None:
        """Show what arrived since the last time."""
        arrived: dict[SideName, str] = {}
        ended: list[Chunk] = []
        while self._arrived:
            chunk = self._arrived.popleft()
            self.talk.hear(chunk)
            arrived[chunk.side] = arrived.get(chunk.side, "") + chunk.text
            self._speeds[chunk.side] = chunk.tokens_per_second or self._speeds[chunk.side]
            if chunk.done:
                ended.append(chunk)
        for side, text in arrived.items():
            self.query_one(f"#{side}", ChatPane).extend(text)
            self.query_one(f"#{side}-title", Lines).repaint()
        for chunk in ended:
            self._remark(chunk)
        if not self.answering:
            self._stop_drawing()

    def _remark(self, chunk: Chunk) -> None:
        look, pane = self.look, self.query_one(f"#{chunk.side}", ChatPane)
        endings = {
            "length": f"cut at {count_text(chunk.tokens)} tokens; ctrl+g allows longer answers",
            "context": "the model reads no further; ctrl+n begins anew",
            "cancelled": "ended by you",
        }
        if words := endings.get(chunk.ending or ""):
            pane.remark(words, look.warn)
        if chunk.tried:
            pane.remark(drawable(chunk.tried, look), look.warn)
        as_expected = self.talk.is_as_expected(chunk.side)
        if as_expected:
            pane.remark(f"{look.glyph('✓', '+')} the expected answer", look.good)
        elif as_expected is False:
            pane.remark(f"{look.glyph('✗', 'x')} not the expected answer, which is", look.bad)
            pane.remark(printable(self.talk.expected, 2000), look.dim)

    def _stop_drawing(self) -> None:
        if self._drawing is not None:
            self._drawing.pause()
        self._repaint_titles()

    # Keys

    def do_back(self) -> None:
        if self.answering:
            self._session.cancel()
            self._notice(Text("ending the answer", style=self.look.dim))
        elif self._waiting is not None:
            self._waiting = None
            self._notice(Text())
        elif self.app.screen is self:  # not left already: one Ctrl-C more would close the screen below
            self.dismiss()

    def do_forget(self) -> None:
        self.talk.forget()
        for pane in self.query(ChatPane):
            pane.clear()
        self._speeds = dict.fromkeys(SIDES)
        self._notice(Text())
        self._repaint_titles()

    def do_sides(self) -> None:
        self._choice = (self._choice + 1) % len(CHOICES)
        self._show_sides()

    def do_sampling(self) -> None:
        self.app.push_screen(SamplingDialog(self.sampling), self._sample_by)

    def _sample_by(self, sampling: Sampling | None) -> None:
        if sampling is not None:
            self.sampling = sampling
            self.query_one("#title", Lines).repaint()

    def do_sample(self) -> None:
        if self._samples is None:
            self._read_held_out()
        else:
            self._offer(self._samples)

    @work(thread=True, exclusive=True, group="samples")
    def _read_held_out(self) -> None:
        try:
            samples = self._read_samples(self.chat_run)
        except Problem as problem:
            tell(self._told, problem)
        else:
            tell(self._offer, samples)

    def _told(self, problem: Problem) -> None:
        self._notice(problem_text(problem, self.look))

    def _offer(self, samples: list[HeldOutSample]) -> None:
        self._samples = samples
        self.app.push_screen(SamplePicker(samples), self._picked)

    def _picked(self, sample: HeldOutSample | None) -> None:
        if sample is None or self.answering:
            return
        self.do_forget()  # a row stands for itself: nothing said before it
        self._ask(sample)

    def do_page_up(self) -> None:
        for pane in self.query(ChatPane):
            pane.page(-1)

    def do_page_down(self) -> None:
        for pane in self.query(ChatPane):
            pane.page(1)

    # What is shown around the answers

    def _notice(self, words: Text) -> None:
        notice = self.query_one("#notice", Static)
        notice.update(words)
        notice.display = bool(words.plain)

    def _brief(self, asked: HeldOutSample) -> str:
        return drawable(printable(asked.question, 60), self.look)

    def _show_sides(self) -> None:
        for side in SIDES:
            column = self.query_one(f"#{side}-side")
            column.display = side in self.sides
            column.set_class(len(self.sides) == 1, "-alone")
        self._repaint_titles()

    def _repaint_titles(self) -> None:
        for title in self.query(Lines):
            title.repaint()
        self.query_one(KeyBar).repaint()

    def _title_line(self, width: int, height: int) -> list[Text]:
        look, sampling = self.look, self.sampling
        left = Text.assemble(("Chat", look.strong), f"   {printable(self.chat_run.spec_name)}")
        words = []
        if self._model is not None:
            words.append(f"{self._model.device} {DTYPES.get(self._model.dtype, self._model.dtype)}")
        words += [
            f"temperature {sampling.temperature:g}",
            f"{count_text(sampling.max_new_tokens)} tokens",
        ]
        return [spread(left, Text(look.separator.join(words), style=look.dim), width, look)]

    def _side_line(self, side: SideName, width: int, height: int) -> list[Text]:
        look, speed = self.look, self._speeds[side]
        left = Text(f"{side} model", style=look.accent if side == "tuned" else look.strong)
        words = rate_text(speed) if speed is not None else "reading" if side in self.talk.answers else ""
        return [spread(left, Text(words, style=look.dim), width, look)]
