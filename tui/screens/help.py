"""Help: what every key of a screen does, written from the same table as the footer."""

from __future__ import annotations

import textwrap
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from tui.keys import APP_KEYS, Key, KeyedScreen
from tui.theme import Look, look_of

KEY_WIDTH = 13
WIDTH = 78
BESIDE = 10
"""What border, padding and scroll bar take of it."""
MEMORY_TEXT = (
    "The memory bar is split by what takes the memory, in this order: weights, adapters, gradients, optimizer, "
    "activations, loss, context, others' use, free. What was predicted stands above what was measured. A bar that ends "
    "in an ellipsis is cut: more is free than it shows."
)


class HelpScreen(ModalScreen[None]):
    """Covers the screen it explains; any of its keys goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,question_mark,q,enter", "dismiss"),
        ("j,down", "scroll(1)"),
        ("k,up", "scroll(-1)"),
        ("g,home", "scroll(-999)"),
        ("G,end", "scroll(999)"),
    ]

    def __init__(self, explained: Screen):
        super().__init__()
        self._explained = explained

    def compose(self) -> ComposeResult:
        look = look_of(self)
        screen = self._explained if isinstance(self._explained, KeyedScreen) else None
        with VerticalScroll(classes="dialog", id="help"):
            yield Static(Text(screen.TITLE_WORD if screen else "Keys", style=look.strong))
            here = screen.all_keys[: -len(APP_KEYS)] if screen else ()
            names = {key.name for key in here}
            elsewhere = [key for key in screen.KEYS if key.name not in names] if screen else []
            for keys in (here, APP_KEYS):
                yield Static(Text("\n").join(line for key in keys for line in self._lines(key, look)))
            if elsewhere:
                yield Static(Text("Elsewhere on this screen", style=look.strong))
                lines = [line for key in elsewhere for line in self._lines(key, look, with_reason=False)]
                yield Static(Text("\n").join(lines))
            yield Static(Text(MEMORY_TEXT, style=look.dim))

    def _lines(self, key: Key, look: Look, with_reason: bool = True) -> list[Text]:
        screen = self._explained
        reason = screen.why_not(key.name) if with_reason and isinstance(screen, KeyedScreen) else None
        room = min(WIDTH, self.app.size.width) - BESIDE - KEY_WIDTH
        lines = [Text(line) for line in textwrap.wrap(key.help, max(16, room))]
        if reason:
            lines += [Text(line, style=look.warn) for line in textwrap.wrap(f"Not now: {reason}.", max(16, room))]
        starts = [Text(key.all_shown.ljust(KEY_WIDTH), style=look.accent), *[Text(" " * KEY_WIDTH)] * len(lines)]
        return [Text().append_text(start).append_text(line) for start, line in zip(starts, lines, strict=False)]

    def action_scroll(self, rows: int) -> None:
        self.query_one("#help").scroll_relative(y=rows, animate=False)
