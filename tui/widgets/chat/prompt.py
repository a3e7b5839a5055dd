"""The line a question is typed into; the arrow keys bring back earlier questions."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import Input


class PromptLine(Input):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "earlier(-1)", "earlier", show=False),
        Binding("down", "earlier(1)", "later", show=False),
    ]

    DEFAULT_CSS = """
    PromptLine { width: 1fr; padding: 0; background: transparent; }
    PromptLine:focus { background-tint: transparent; }
    """

    def __init__(self, id: str):
        super().__init__(id=id, compact=True, select_on_focus=False)
        self.cursor_blink = False  # a blinking cursor writes 2 KB/s over SSH while nobody types
        self._asked: list[str] = []
        self._at = 0

    def take(self) -> str:
        """What was typed; the line is empty again and remembers it."""
        question = self.value.strip()
        if question:
            self._asked.append(question)
        self._at = len(self._asked)
        self.value = ""
        return question

    def action_earlier(self, direction: int) -> None:
        self._at = min(max(0, self._at + direction), len(self._asked))
        self.value = self._asked[self._at] if self._at < len(self._asked) else ""
        self.cursor_position = len(self.value)

    async def _on_key(self, event: events.Key) -> None:
        # These belong to the screen; Input itself would copy, or type the question mark.
        if event.key == "ctrl+c" and self.selection.is_empty:
            event.prevent_default()
            event.stop()
            await self.run_action("screen.key('back')")
        elif event.key == "question_mark" and not self.value:
            event.prevent_default()
            event.stop()
            await self.run_action("screen.key('help')")
        else:
            await super()._on_key(event)
