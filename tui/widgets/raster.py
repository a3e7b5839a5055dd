"""A grid of dots drawn with braille (2 x 4 dots a cell), or with one character a cell in ASCII."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.text import Text

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


@dataclass(slots=True)
class Raster:
    """Cells of `columns` x `rows`. Later layers hide earlier ones cell by cell; marks hide both."""

    columns: int
    rows: int
    ascii: bool = False
    _cells: dict[tuple[int, int], tuple[int, str, str]] = field(default_factory=dict)
    _marks: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """In dots."""
        return self.columns if self.ascii else self.columns * 2

    @property
    def height(self) -> int:
        """In dots."""
        return self.rows if self.ascii else self.rows * 4

    def dot(self, x: int, y: int, style: str, character: str) -> None:
        """Set the dot in column `x` and row `y` from the top, both in dots; `character` is its ASCII form."""
        if not (0 <= x < self.width and 0 <= y < self.height):
            return
        if self.ascii:
            self._cells[x, y] = (0, style, character)
            return
        cell = (x // 2, y // 4)
        bits, old_style, _ = self._cells.get(cell, (0, style, ""))
        bit = _DOTS[y % 4][x % 2]
        self._cells[cell] = (bits | bit if old_style == style else bit, style, "")

    def line(self, start: tuple[int, int], end: tuple[int, int], style: str, character: str) -> None:
        """Dots from `start` to `end`: in every column at least one, without holes in a steep rise."""
        (x1, y1), (x2, y2) = start, end
        steps = max(abs(x2 - x1), abs(y2 - y1), 1)
        for step in range(steps + 1):
            self.dot(round(x1 + (x2 - x1) * step / steps), round(y1 + (y2 - y1) * step / steps), style, character)

    def mark(self, x: int, y: int, glyph: str, style: str) -> None:
        """Put a character over the cell that holds this dot."""
        cell = (x, y) if self.ascii else (x // 2, y // 4)
        if 0 <= cell[0] < self.columns and 0 <= cell[1] < self.rows:
            self._marks[cell] = (glyph, style)

    def row(self, y: int) -> Text:
        """One row of cells."""
        text = Text(no_wrap=True)
        for x in range(self.columns):
            if (x, y) in self._marks:
                text.append(*self._marks[x, y])
            elif (x, y) in self._cells:
                bits, style, character = self._cells[x, y]
                text.append(character or chr(0x2800 + bits), style=style)
            else:
                text.append(" ")
        return text
