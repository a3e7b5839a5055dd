"""A question with its answers, in the middle of the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.markup import escape
from textual.screen import ModalScreen
from textual.widgets import Static

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer: the letter that gives it, what it says, and what the dialog then returns."""

    key: str
    label: str
    answer: str


class Dialog(ModalScreen[Answer]):
    """Gives one answer, whatever keys were pressed before it was gone."""

    def answer(self, answer: Answer) -> None:
        """Return `answer`. A second one would close the screen below."""
        if self.app.screen is self:
            self.dismiss(answer)


class ChoiceDialog(Dialog[str | None]):
    """Returns the answer whose key was pressed, or None for Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(None)")]

    def __init__(self, question: str, detail: str, choices: Sequence[Choice], leave: str = "cancel"):
        """`leave` says what Esc does; empty where it does the same as one of the choices."""
        super().__init__()
        self._question, self._detail, self._choices, self._leave = question, detail, choices, leave

    def compose(self) -> ComposeResult:
        keys = [(choice.key, choice.label) for choice in self._choices]
        keys += [("esc", self._leave)] if self._leave else []
        # Beside one another where they are few words, else a line each.
        gap = "    " if sum(len(key) + len(label) + 5 for key, label in keys) <= 56 else "\n"
        with Vertical(classes="dialog"):
            yield Static(self._question, markup=False, classes="dialog-question")
            yield Static(self._detail, markup=False, classes="dialog-detail")
            yield Static(gap.join(f"[$accent]{key}[/] {escape(label)}" for key, label in keys), classes="dialog-keys")

    def on_key(self, event: events.Key) -> None:
        chosen = next((choice for choice in self._choices if choice.key == event.character), None)
        if chosen is not None:
            event.stop()
            self.answer(chosen.answer)


class ConfirmDialog(ModalScreen[bool]):
    """Answers True for `y` or Enter, False for `n` or Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [("y,enter", "answer(True)"), ("n,escape,q", "answer(False)")]

    def __init__(self, question: str, detail: str, yes: str, no: str):
        super().__init__()
        self._question, self._detail, self._yes, self._no = question, detail, yes, no

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(self._question, markup=False, classes="dialog-question")
            yield Static(self._detail, markup=False, classes="dialog-detail")
            yield Static(f"[$accent]y[/] {self._yes}    [$accent]n[/] {self._no}", classes="dialog-keys")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)
