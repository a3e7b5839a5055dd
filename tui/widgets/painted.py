"""The base of finetui's own widgets: lines of text painted for an exact width and height."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.text import Text
from textual.strip import Strip
from textual.widget import Widget

from tui.theme import Look, look_of

LEAST_RIGHT = 8
"""What is at the right end of a line is left out where it would be shorter than this."""


class Painted(Widget):
    """A widget whose whole content is what `paint` returns: one Text a line, cut or padded to the width.

    `repaint()` paints again; nothing is drawn where all lines come out equal, so callers may repaint at any change.
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None):
        super().__init__(id=id, classes=classes)
        self._lines: list[Text] = []
        self._painted_size = (0, 0)

    @property
    def look(self) -> Look:
        return look_of(self)

    def paint(self, width: int, height: int) -> Sequence[Text]:
        """The lines to show in `width` columns and `height` rows; missing ones are blank."""
        raise NotImplementedError

    def repaint(self) -> None:
        """Show what `paint` returns now."""
        size = (self.size.width, self.size.height)
        if not all(size) or not self.is_mounted:
            return
        lines = list(self.paint(*size))[: size[1]]
        if lines != self._lines or size != self._painted_size:
            self._lines, self._painted_size = lines, size
            self.refresh()

    def on_resize(self) -> None:
        self.repaint()

    def on_mount(self) -> None:
        self.repaint()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        style = self.rich_style
        if (width, self.size.height) != self._painted_size:
            self._lines = list(self.paint(width, self.size.height))[: self.size.height]
            self._painted_size = (width, self.size.height)
        if y >= len(self._lines):
            return Strip.blank(width, style)
        line = self._lines[y]
        # rich draws a Text without spans plainly, whatever its own style is.
        own = self.app.console.get_style(line.style)
        strip = Strip(Segment.apply_style(line.render(self.app.console), own)).adjust_cell_length(width)
        return strip.apply_style(style) if style else strip


def fit(text: str, width: int, look: Look) -> str:
    """`text` in exactly `width` cells: padded, or cut with an ellipsis."""
    if cell_len(text) <= width:
        return text + " " * (width - cell_len(text))
    return set_cell_size(text, max(0, width - 1)) + look.ellipsis if width > 0 else ""


def right(text: str, width: int, look: Look) -> str:
    """`text` right-aligned in exactly `width` cells, cut with an ellipsis if it is longer."""
    return " " * max(0, width - cell_len(text)) + text if cell_len(text) <= width else fit(text, width, look)


def cut(text: Text, width: int, look: Look) -> Text:
    """`text` itself, shortened to `width` cells with an ellipsis where it is longer."""
    text.no_wrap = True
    if text.cell_len > width:
        text.truncate(max(0, width - 1))
        text.append(look.ellipsis, style=look.dim)
    return text


def spread(left: Text, right_part: Text, width: int, look: Look) -> Text:
    """One line with `left` at its left end and `right_part` at its right end, which gives way where they meet."""
    line = cut(Text().append_text(left), width, look)
    room = width - line.cell_len - 2
    if room < min(LEAST_RIGHT, right_part.cell_len):
        return line
    shown = cut(right_part.copy(), room, look)
    return line.append(" " * (width - line.cell_len - shown.cell_len)).append_text(shown)
