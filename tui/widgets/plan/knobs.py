"""The settings of the chosen profile that can be moved on the plan, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from tui.widgets.painted import Painted, cut
from tui.widgets.plan.board import current_value

if TYPE_CHECKING:
    from tui.widgets.new_run.draft import Setting
    from tui.widgets.plan.board import Board

SHORT = {"data.sequence_length": "length", "method.trained_layers": "layers"}
"""Labels that are shorter here than in the settings step, for a line of 78 columns."""
BETWEEN = "   "


class PlanKnobs(Painted):
    """Two rows: names above values; the one that left and right move stands between arrows."""

    DEFAULT_CSS = "PlanKnobs { height: 2; width: 1fr; padding: 0 1; }"

    def __init__(self, *, id: str | None = None):
        super().__init__(id=id)
        self._board: Board | None = None

    def show(self, board: Board) -> None:
        self._board = board
        self.repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        board, look = self._board, self.look
        if board is None:
            return []
        names, values = Text(no_wrap=True), Text(no_wrap=True)
        for setting in _around(board, width):
            chosen = setting is board.setting
            label, shown = _shown(setting, board)
            room = max(len(label), len(shown))
            before, after = (look.glyph("‹", "<"), look.glyph("›", ">")) if chosen else (" ", " ")
            changed = setting.field in board.row.changes
            names.append(f" {label.ljust(room)} ", style=f"bold {look.accent}" if chosen else look.dim)
            style = look.accent if changed else look.strong if chosen else ""
            values.append(before, style=look.accent).append(shown, style=style).append(after, style=look.accent)
            values.append(" " * (room - len(shown)))
            names.append(BETWEEN[2:])
            values.append(BETWEEN[2:])
        return [cut(names, width, look), cut(values, width, look)]


def _shown(setting: Setting, board: Board) -> tuple[str, str]:
    """The name and the value of a setting."""
    return SHORT.get(setting.field, setting.label), setting.show(current_value(setting, board.profile.settings))


def _around(board: Board, width: int) -> list[Setting]:
    """The settings that there is room for: all of them, or the last ones up to the one that is moved."""
    settings = board.settings
    widths = [len(BETWEEN) + max(map(len, _shown(setting, board))) for setting in settings]
    end = settings.index(board.setting) + 1
    start = 0
    while sum(widths[start:end]) > width and start < end - 1:
        start += 1
    return settings[start:]
