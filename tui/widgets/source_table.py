"""The monitor's table of data sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from tui.source_words import SOURCE_COLUMNS, source_rows
from tui.theme import Look
from tui.widgets.painted import Painted, cut, fit, right

if TYPE_CHECKING:
    from engine.run.telemetry.events import RunState

_LEAST_NAME = 12
_LEFT_OUT_FIRST = ("repeats", "rows", "share")
"""Columns that a narrow terminal does without."""


class SourceTable(Painted):
    """One line for each source below a heading; those that do not fit are counted in the last line."""

    DEFAULT_CSS = "SourceTable { height: auto; width: 1fr; padding: 0 1; }"

    def __init__(self, *, id: str | None = None):
        super().__init__(id=id)
        self._state: RunState | None = None

    def show(self, state: RunState) -> None:
        """Show this run's sources."""
        self._state = state
        self.repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        lines = source_lines(self._state, width, self.look) if self._state is not None else []
        if len(lines) <= height:
            return lines
        left_out = Text(f"{len(lines) - height + 1} more: v shows them below", style=self.look.dim)
        return [*lines[: height - 1], cut(left_out, width, self.look)]


def source_lines(state: RunState, width: int, look: Look) -> list[Text]:
    """A heading and a line for each data source; no lines for a run of one."""
    rows = source_rows(state, look.glyph("→", "->"))
    if not rows:
        return []
    widths = [max(len(row[index]) for row in (SOURCE_COLUMNS, *rows)) for index in range(len(SOURCE_COLUMNS))]
    shown = list(range(1, len(SOURCE_COLUMNS)))
    for name in _LEFT_OUT_FIRST:
        if width - sum(widths[index] + 2 for index in shown) >= _LEAST_NAME:
            break
        shown.remove(SOURCE_COLUMNS.index(name))
    room = min(widths[0], width - sum(widths[index] + 2 for index in shown))

    def line(row: tuple[str, ...], style: str) -> Text:
        cells = [fit(row[0], room, look), *(right(row[index], widths[index], look) for index in shown)]
        return cut(Text(no_wrap=True).append("  ".join(cells), style=style), width, look)

    return [line(SOURCE_COLUMNS, look.dim), *(line(row, "") for row in rows)]
