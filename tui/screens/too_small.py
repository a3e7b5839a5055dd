"""What is shown when the terminal is smaller than the app can use: one plain sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen
from textual.widgets import Static


class TooSmallScreen(Screen):
    """Covers everything until the terminal is larger. `q` still quits."""

    BINDINGS: ClassVar[list[BindingType]] = [("q", "app.key('quit')")]

    def __init__(self, is_small: Callable[[], bool]):
        super().__init__()
        self._is_small = is_small

    def compose(self) -> ComposeResult:
        yield Static("finetui needs 40x12 characters. Enlarge the terminal, or press q.", markup=False)

    def on_screen_resume(self) -> None:
        # A question may have come above it, and the terminal have been enlarged before that was answered.
        if self.app.screen is self and not self._is_small():
            self.dismiss()
