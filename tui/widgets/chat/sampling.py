"""How answers are made: temperature and length, in a small dialog."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from profiles.problem import Problem
from tui.theme import look_of
from tui.widgets.chat.talk import Sampling
from tui.widgets.dialog import Dialog
from tui.widgets.new_run.text import problem_line


class SamplingDialog(Dialog["Sampling | None"]):
    """Enter takes both values, Tab goes to the other one, Esc leaves them as they were."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+c", "leave", "back", show=False),
        Binding("down", "app.focus_next", "next", show=False),
        Binding("up", "app.focus_previous", "previous", show=False),
    ]

    CSS = """
    SamplingDialog { align: center middle; }
    SamplingDialog .dialog { width: 64; padding: 1 2; height: auto; }
    SamplingDialog Horizontal { height: 1; }
    SamplingDialog Horizontal Static { width: 17; }
    SamplingDialog Input { width: 12; padding: 0 1; background: $panel; }
    SamplingDialog Horizontal .meaning { width: 1fr; padding-left: 2; }
    SamplingDialog #sampling-note { margin-top: 1; height: auto; min-height: 1; }
    SamplingDialog.-ascii .dialog { border: ascii $accent; }
    """

    def __init__(self, sampling: Sampling):
        super().__init__()
        self._sampling = sampling

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield from self._row("temperature", f"{self._sampling.temperature:g}", "0: always the likeliest token")
            yield from self._row("longest answer", str(self._sampling.max_new_tokens), "tokens")
            yield Static(id="sampling-note")

    def _row(self, label: str, value: str, meaning: str) -> ComposeResult:
        with Horizontal():
            yield Static(label)
            line = Input(value, id=label.replace(" ", "-"), compact=True, select_on_focus=True)
            line.cursor_blink = False
            yield line
            yield Static(meaning, classes="meaning")

    def on_mount(self) -> None:
        look = look_of(self.query_one(Input))
        self.set_class(look.ascii, "-ascii")
        self._note(Text("enter take  esc leave as it was", style=look.dim))

    def _note(self, words: Text) -> None:
        self.query_one("#sampling-note", Static).update(words)

    def action_leave(self) -> None:
        self.dismiss(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        temperature, longest = (each.value for each in self.query(Input))
        try:
            self.answer(Sampling.parse(temperature, longest))
        except Problem as problem:
            self._note(problem_line(problem, look_of(event.input)))
