"""The two lines at the top of the Data screen: what is looked at and for which model; the views with their keys."""

from __future__ import annotations

from rich.text import Text

from profiles.problem import printable
from tui.format import bytes_text, compact_text, counted
from tui.widgets.data.board import DataBoard
from tui.widgets.data.keys import CHOOSING, TITLES, VIEWS
from tui.widgets.new_run.places import label
from tui.widgets.new_run.text import drawable
from tui.widgets.painted import Painted, spread


class _Heading(Painted):
    DEFAULT_CSS = "_Heading { height: 1; width: 1fr; padding: 0 1; }"

    def __init__(self, board: DataBoard, id: str):
        super().__init__(id=id)
        self._board = board
        self._view = "choose"

    def show(self, view: str) -> None:
        self._view = view
        self.repaint()


class DataTitle(_Heading):
    """The shown source, and at the right the model whose tokens are counted."""

    def paint(self, width: int, height: int) -> list[Text]:
        look, board = self.look, self._board
        line = Text().append("Data", style=look.strong)
        words = []
        if board.sources and self._view != "choose":
            state = board.source
            more = f" +{len(board.sources) - 1}" if len(board.sources) > 1 else ""
            words.append(printable(state.section.path.name, 60) + more)
            if state.found is not None:
                rows = state.found.estimated_rows
                known = counted(rows, "row") if state.found.complete else f"about {compact_text(rows)} rows"
                words += [known, bytes_text(state.found.bytes)]
        line.append("   ").append(drawable(look.separator.join(words), look), style=look.dim)
        if self._view in CHOOSING:
            return [spread(line, Text(TITLES[self._view], style=look.accent), width, look)]
        model = label(board.model) if board.model else "choose a model"
        right = Text("M ", style=look.accent).append(drawable(printable(model, 40), look), style=look.dim)
        return [spread(line, right, width, look)]


class DataTabs(_Heading):
    """The views with their keys; the one that is shown stands out."""

    def paint(self, width: int, height: int) -> list[Text]:
        look = self.look
        line = Text(no_wrap=True)
        for name, (key, word) in VIEWS.items():
            line.append(f"{key} ", style=look.accent)
            line.append(word, style=f"{look.strong} underline" if name == self._view else look.dim).append("  ")
        return [line]
