"""Writes only the cells of the screen that changed, whatever a widget repainted.

Textual writes a repainted region whole (and a region that begins inside a widget from that widget's left edge).
Over SSH that is 3 to 100 times the bytes a change needs. `ScreenCells` remembers what each cell of the terminal shows,
and `ChangedCells` turns Textual's update into runs of cells that differ from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.cells import get_character_cell_size
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate

# Moving the cursor takes about this many bytes, so closer runs of changed cells are written as one.
MOVE_BYTES = 6

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("─━═╌┄▔▁▂▃", "-"),
        **dict.fromkeys("│┃║▏▎▍▌▋▊▉▐▕", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯╔╗╚╝┏┓┗┛", "+"),
        **dict.fromkeys("█▓▆▇▅▄▀■", "#"),
        **dict.fromkeys("·•‧∙░▒", "."),
        **dict.fromkeys("“”„", '"'),
        **dict.fromkeys("‘’", "'"),
        **dict.fromkeys("–—", "-"),
        **dict.fromkeys("→›▶", ">"),
        **dict.fromkeys("←‹◀", "<"),
        **dict.fromkeys("●◆✶", "*"),
        "…": "~",
        "✓": "+",
        "✗": "x",
        "×": "x",
        "\xa0": " ",
    }
)

Cell = tuple[str, str]
"""What stands in a column (a character with the marks that combine with it; empty after a wide one), and its codes."""
Row = list[Cell | None]
"""None where it is not known what the terminal shows."""


class ScreenCells:
    """What the terminal shows, cell by cell, as far as this process wrote it."""

    def __init__(self, console: Console, no_color: bool = False, ascii: bool = False):
        """`no_color` and `ascii` hold for everything that is written, also by widgets that know of neither."""
        self._console = console
        self._no_color, self._ascii = no_color, ascii
        self._rows: list[Row] = []
        self._codes: dict[Style, str] = {}

    def forget(self) -> None:
        """Know nothing: the next update is written whole. For when something else may have written or resized."""
        self._rows = [[None] * len(row) for row in self._rows]

    def changes(self, update: CompositorUpdate) -> CompositorUpdate | None:
        """`update` cut down to the cells that differ; None when none do, `update` itself when it is of another kind."""
        if isinstance(update, LayoutUpdate):
            if len(self._rows) != update.region.height or len(self._rows[0]) != update.region.width:
                self._rows = [[None] * update.region.width for _ in range(update.region.height)]
            pieces: Iterable[tuple[int, int, Iterable[Segment]]] = (
                (update.region.y + y, update.region.x, (segment for strip in line for segment in strip))
                for y, line in enumerate(update.strips)
            )
        elif isinstance(update, ChopsUpdate):
            self._rows = self._rows or [[None] * ends[-1] for ends in update.chop_ends]
            pieces = _dirty_chops(update)
        else:
            return update
        changed = ChangedCells(self._rows)
        for y, x, segments in pieces:
            if 0 <= y < len(self._rows):
                changed.compare(y, x, list(self._cells(segments)))
        return changed if changed.runs else None

    def _cells(self, segments: Iterable[Segment]) -> Iterator[Cell]:
        for text, style, control in segments:
            if control:
                continue
            codes = self._codes_of(style) if style else ""
            if self._ascii:
                text = to_ascii(text)
            if text.isascii():
                yield from ((character, codes) for character in text)
                continue
            pending = ""
            for character in text:
                width = get_character_cell_size(character)
                if width == 0 and pending:
                    pending += character
                    continue
                if pending:
                    yield pending, codes
                pending = ""
                if width == 2:
                    yield character, codes
                    yield "", codes
                elif width == 1:
                    pending = character
            if pending:
                yield pending, codes

    def _codes_of(self, style: Style) -> str:
        codes = self._codes.get(style)
        if codes is None:
            shown = style.without_color if self._no_color else style
            codes = shown.render("x", color_system=self._console._color_system).partition("x")[0]
            self._codes[style] = codes
        return codes


class ChangedCells(CompositorUpdate):
    """Runs of changed cells; writing them makes them the ones known."""

    def __init__(self, rows: list[Row]):
        self._rows = rows
        self.runs: list[tuple[int, int, list[Cell]]] = []

    def compare(self, y: int, x: int, cells: list[Cell]) -> None:
        """Add the runs of `cells` (which begin at column `x` of row `y`) that differ from what is known there."""
        known = self._rows[y]
        cells = cells[: max(0, len(known) - x)]
        start = end = -1
        for column, cell in enumerate(cells):
            if cell == known[x + column]:
                continue
            if start < 0:
                start = column
            elif column - end > MOVE_BYTES:
                self._add(y, x, start, end, cells)
                start = column
            end = column + 1
        if start >= 0:
            self._add(y, x, start, end, cells)

    def _add(self, y: int, x: int, start: int, end: int, cells: list[Cell]) -> None:
        # A wide character is written whole: never its second half alone, nor its first without the second.
        while start > 0 and not cells[start][0]:
            start -= 1
        while end < len(cells) and not cells[end][0]:
            end += 1
        self.runs.append((y, x + start, cells[start:end]))

    def render_segments(self, console: Console) -> str:
        """The terminal's bytes for these runs, as text."""
        written: list[str] = []
        for y, x, cells in self.runs:
            self._rows[y][x : x + len(cells)] = cells
            written.append(f"\x1b[{y + 1};{x + 1}H")
            current = ""
            for text, codes in cells:
                if codes != current:
                    # Codes add up, so those of the cell before are taken back first.
                    written.append(("\x1b[0m" if current else "") + codes)
                    current = codes
                written.append(text)
            if current:
                written.append("\x1b[0m")
        return "".join(written)


def to_ascii(text: str) -> str:
    """`text` in ASCII and as many cells wide: drawings by what is like them, other characters as question marks."""
    plain = text.translate(_PLAIN)
    if plain.isascii():
        return plain
    return "".join(
        character if character.isascii() else "?" * get_character_cell_size(character) for character in plain
    )


def _dirty_chops(update: ChopsUpdate) -> Iterator[tuple[int, int, Iterable[Segment]]]:
    seen = set()
    for y, left, right in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is not None and x < right and end > left and (y, x) not in seen:
                seen.add((y, x))
                yield y, x, strip
