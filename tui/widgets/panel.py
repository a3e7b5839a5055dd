"""A titled panel of lines that can be scrolled: the log, samples, notes, the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text

from tui.theme import Look
from tui.widgets.painted import Painted

Blocks = Sequence[Sequence[Text]]
"""Lines that belong together; scrolling moves by blocks."""


class Panel(Painted):
    """A row of view names with one of them chosen, and below it that view's lines.

    `content(view, width, height, look)` gives the blocks. Views in `tails` show their end until scrolled back.
    """

    DEFAULT_CSS = "Panel { height: 6; width: 1fr; padding: 0 1; }"

    def __init__(
        self,
        views: Sequence[str],
        content: Callable[[str, int, int, Look], Blocks],
        tails: Sequence[str] = ("log",),
        *,
        id: str | None = None,
    ):
        super().__init__(id=id)
        self.views = list(views)
        self.view = self.views[0]
        self._content, self._tails = content, tails
        self._top: dict[str, int | None] = {}
        self._page = (0, 0)

    def choose(self, view: str) -> None:
        """Show this view, one of `views`."""
        self.view = view
        self.repaint()

    def choose_next(self) -> None:
        self.choose(self.views[(self.views.index(self.view) + 1) % len(self.views)])

    def scroll_blocks(self, blocks: int) -> None:
        """Move by so many blocks, as far as there are any."""
        first, count = self._page
        top = max(0, min(first + blocks, count))
        self._top[self.view] = top
        self.repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        look = self.look
        blocks = list(self._content(self.view, width, height - 1, look))
        top = self._first_block(blocks, height - 1)
        self._page = (top, max(0, len(blocks) - 1))
        lines = [line for block in blocks[top:] for line in block][: height - 1]
        return [self._title(width, top, len(blocks), look), *lines]

    def _first_block(self, blocks: Blocks, rows: int) -> int:
        # The last block from which everything to the end still fits.
        fitting, left = len(blocks), rows
        while fitting > 0 and left >= len(blocks[fitting - 1]):
            fitting -= 1
            left -= len(blocks[fitting])
        fitting = min(fitting, max(0, len(blocks) - 1))
        chosen = self._top.get(self.view)
        if chosen is None:
            return fitting if self.view in self._tails else 0
        if chosen >= fitting:
            self._top[self.view] = None if self.view in self._tails else fitting
            return fitting
        return chosen

    def _title(self, width: int, top: int, count: int, look: Look) -> Text:
        rule = look.glyph("─", "-")
        title = Text(no_wrap=True).append(rule * 2 + " ", style=look.faint)
        for index, view in enumerate(self.views):
            if index:
                title.append("  ")
            title.append(view, style=look.accent if view == self.view else look.dim)
            if view == self.view and not look.colored:
                title.stylize("underline", len(title) - len(view))
        place = f" {top + 1}/{count} " if top and count > 1 else ""
        title.append(" ").append(rule * max(0, width - title.cell_len - len(place) - 2), style=look.faint)
        return title.append(place, style=look.dim).append(rule * 2, style=look.faint)
