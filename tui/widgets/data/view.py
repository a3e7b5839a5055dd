"""What the views of the Data screen have in common."""

from __future__ import annotations

from typing import ClassVar

from textual.message import Message

from tui.widgets.data.board import DataBoard
from tui.widgets.painted import Painted


class DataView(Painted):
    """One view of a board. The screen passes the keys on; a view repaints itself after each."""

    DEFAULT_CSS = "DataView { height: 1fr; width: 1fr; padding: 0 1; }"

    keys: ClassVar[tuple[str, ...]] = ()
    """The screen's keys that do something here, besides those that every view has."""

    change_word: ClassVar[str] = "change"
    """What `<` and `>` move here, for the footer."""

    class Changed(Message):
        """The board was changed in a way that others show."""

    class Reread(Message):
        """A source is to be read in another way."""

    def __init__(self, board: DataBoard, id: str):
        super().__init__(id=id)
        self.board = board

    def why_not(self, name: str) -> str | None:
        """Why the key called `name` cannot be used now; None when it can."""
        return None

    def move(self, rows: int) -> None:
        """Move the cursor down (or up) by so many rows, as far as there are any."""

    def page(self, direction: int) -> None:
        """Scroll by about a screenful."""

    def change(self, direction: int) -> None:
        """Take the next larger (1) or smaller (-1) value of what the cursor stands on."""
