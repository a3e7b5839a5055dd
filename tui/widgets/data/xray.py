"""The X-ray view: the row under the sample's cursor as the model will read it, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from profiles.problem import Problem
from tui.format import count_text, counted
from tui.theme import Look
from tui.widgets.data.board import DataBoard
from tui.widgets.data.rows import SampleRow
from tui.widgets.data.view import DataView
from tui.widgets.data.xray_text import marks_line, sum_line, xray_lines
from tui.widgets.new_run.text import drawable, problem_text
from tui.widgets.painted import cut, spread

if TYPE_CHECKING:
    from engine.data.tokens.xray import XRay


PATIENCE_SECONDS = 0.4
"""How long the tokens of the row before stay on the screen while those of the next are awaited."""


class XRayView(DataView):
    keys = ("less", "more", "borders", "down", "up", "first", "last", "page_down", "page_up")
    change_word = "row"

    def __init__(self, board: DataBoard, id: str):
        super().__init__(board, id)
        self._row: SampleRow | None = None
        self._found: Sequence[XRay] | Problem | None = None
        self._borders = True
        self._scroll = self._furthest = 0
        self._asked: SampleRow | None = None
        """The row whose tokens are on their way; None when they are shown."""

    def why_not(self, name: str) -> str | None:
        return "choose a model first" if name == "borders" and self.board.model is None else None

    def begin(self, row: SampleRow | None) -> None:
        """The tokens of this row are on their way. What is shown stays for a moment: mostly they are here at once, and
        drawing an empty view in between would flicker, and double what a slow line has to carry."""
        self._asked = row
        if self._found is None or row is None or row.content is None:
            self._wait_for(row)
        else:
            self.set_timer(PATIENCE_SECONDS, lambda: self._wait_for(row) if self._asked is row else None)

    def _wait_for(self, row: SampleRow | None) -> None:
        self._scroll = self._scroll if row is self._row else 0
        self._row, self._found = row, None
        self.repaint()

    def show(self, row: SampleRow, found: Sequence[XRay] | Problem) -> None:
        if row is self._asked:
            self._scroll = self._scroll if row is self._row else 0
            self._row, self._found, self._asked = row, found, None
            self.repaint()

    def toggle_borders(self) -> None:
        self._borders = not self._borders
        self.repaint()

    def move(self, rows: int) -> None:
        self._scroll = max(0, min(self._scroll + rows, self._furthest))
        self.repaint()

    def page(self, direction: int) -> None:
        self.move(direction * max(1, self.size.height - 4))

    def paint(self, width: int, height: int) -> list[Text]:
        look, row = self.look, self._row
        if self.board.model is None:
            words = "Tokens are a model's own: press M and choose the model that is to learn from this."
            return list(Text(words, style=look.dim).wrap(self.app.console, width))
        if row is None:
            return [Text("There is no row to look at.", style=look.dim)]
        if row.content is None:
            said = f"This {row.unit} {row.reason}, so that the model reads nothing of it."
            return list(Text(drawable(said, look), style=look.bad).wrap(self.app.console, width))
        if self._found is None:
            return [Text(f"{row.unit} {row.line:,}: counting its tokens {look.ellipsis}", style=look.dim)]
        if isinstance(self._found, Problem):
            return list(problem_text(self._found, look).wrap(self.app.console, width))
        body = [line for index in range(len(self._found)) for line in self._sequence(index, width, look)]
        room = height - 3
        self._furthest = max(0, len(body) - room)
        self._scroll = min(self._scroll, self._furthest)
        return [
            *self._head(width, len(body) - self._scroll - room, look),
            *body[self._scroll : self._scroll + room],
        ]

    def _head(self, width: int, rest: int, look: Look) -> list[Text]:
        """Where the tokens go, what marks stand among them, and a blank line."""
        assert self._row is not None and self._found is not None and not isinstance(self._found, Problem)
        tokens = [token for each in self._found for token in each.tokens]
        place = f"{self._row.unit} {self._row.line:,}"
        left = Text(no_wrap=True).append(f"{place}  ", style=look.strong).append_text(sum_line(tokens, look))
        below = f"{counted(rest, 'more line')} {look.glyph('↓', 'below')}" if rest > 0 else ""
        return [
            cut(left, width, look),
            spread(marks_line(tokens, look), Text(below, style=look.dim), width, look),
            Text(),
        ]

    def _sequence(self, index: int, width: int, look: Look) -> list[Text]:
        assert self._found is not None and not isinstance(self._found, Problem)
        each = self._found[index]
        lines = []
        if len(self._found) > 1:
            said = f"{each.name}{look.separator}{count_text(len(each.tokens))} tokens"
            lines += [Text(said, style=look.strong)] if not index else [Text(), Text(said, style=look.strong)]
        lines += xray_lines(each.tokens, width, look, self._borders)
        for note in each.notes:
            lines += Text(drawable(f"! {note}", look), style=look.warn).wrap(self.app.console, width)
        return lines
