"""One or more rows of text that are set as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text

from tui.widgets.painted import Painted

Paint = Callable[[int, int], Sequence[Text]]


class Lines(Painted):
    """Rows that a function paints for a width and a height; `show` gives it a new function."""

    DEFAULT_CSS = "Lines { height: 1; width: 1fr; padding: 0 1; }"

    def __init__(self, paint: Paint | None = None, *, id: str | None = None, classes: str | None = None):
        super().__init__(id=id, classes=classes)
        self._paint = paint

    def show(self, paint: Paint) -> None:
        self._paint = paint
        self.repaint()

    def paint(self, width: int, height: int) -> Sequence[Text]:
        return self._paint(width, height) if self._paint else ()
