"""A question with two answers, in the middle of the screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static


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
