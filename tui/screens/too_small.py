"""What is shown when the terminal is smaller than the app can use: one plain sentence."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen
from textual.widgets import Static


class TooSmallScreen(Screen):
    """Covers everything until the terminal is larger. `q` still quits."""

    BINDINGS: ClassVar[list[BindingType]] = [("q", "app.key('quit')")]

    def compose(self) -> ComposeResult:
        yield Static("finetui needs 40x12 characters. Enlarge the terminal, or press q.", markup=False)
