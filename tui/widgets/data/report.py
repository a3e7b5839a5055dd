"""The quality report: what was found in the rows, each finding with its places and what can be done about it."""

from __future__ import annotations

from rich.text import Text

from profiles.problem import Problem
from tui.theme import Look
from tui.widgets.data.board import DataBoard, Progress
from tui.widgets.data.findings import REPORT_ROWS, Finding
from tui.widgets.data.view import DataView
from tui.widgets.new_run.text import drawable, problem_text
from tui.widgets.painted import cut, spread

BAR = 30


class ReportView(DataView):
    keys = ("down", "up", "first", "last", "whole", "filter")

    def __init__(self, board: DataBoard, id: str):
        super().__init__(board, id)
        self.cursor = 0
        self.progress: Progress | None = None
        self.problem: Problem | None = None
        self.whole = False
        """Every row was asked for, not a sample."""
        self._top = 0

    @property
    def finding(self) -> Finding | None:
        return self.board.findings[self.cursor] if self.cursor < len(self.board.findings) else None

    def why_not(self, name: str) -> str | None:
        if name == "filter":
            return None if self.finding is not None and self.finding.lines else "it is about no row in particular"
        if name == "whole" and self.progress is not None:
            return "it is being made"
        return "it is of every row already" if name == "whole" and self.is_whole and self.board.findings else None

    @property
    def is_whole(self) -> bool:
        """Whether the findings are about every row, be it because there are not many."""
        # The rows of a sample are taken from all files alike, the held-out one included.
        share = REPORT_ROWS // max(1, len(self.board.sources) + (self.board.held_out is not None))
        found = [state.found for state in self.board.sources]
        return self.whole or all(each is not None and each.complete and each.rows <= share for each in found)

    def begin(self, whole: bool) -> None:
        """A report is on its way, of a sample or of the whole data."""
        self.whole, self.problem = whole, None
        self.progress = Progress("reading", 0.0)
        self.repaint()

    def tell(self, progress: Progress) -> None:
        self.progress = progress
        self.repaint()

    def end(self, problem: Problem | None = None) -> None:
        """The findings are on the board, or there is a problem instead."""
        self.progress, self.problem = None, problem
        self.cursor = min(self.cursor, max(0, len(self.board.findings) - 1))
        self.repaint()

    def move(self, rows: int) -> None:
        self.cursor = max(0, min(self.cursor + rows, len(self.board.findings) - 1))
        self.post_message(self.Changed())
        self.repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        look = self.look
        head = [self._head(width, look), Text()]
        if self.problem is not None:
            return [*head, *problem_text(self.problem, look).wrap(self.app.console, width)]
        blocks = [self._block(index, width, look) for index in range(len(self.board.findings))]
        room = height - len(head)
        starts = [sum(map(len, blocks[:index])) for index in range(len(blocks) + 1)]
        lines = [line for block in blocks for line in block]
        if blocks:
            end = starts[self.cursor + 1]
            self._top = max(min(self._top, starts[self.cursor]), end - room)
            self._top = max(0, min(self._top, starts[self.cursor]))
        return [*head, *lines[self._top : self._top + room]]

    def _head(self, width: int, look: Look) -> Text:
        if self.progress is not None:
            said = f"  {look.separator.join(self.progress.words())}"
            return cut(bar_text(self.progress.share, BAR, look).append(said, style=look.dim), width, look)
        if not self.board.findings:
            return Text("No report was made yet.", style=look.dim)
        of = "of every row" if self.is_whole else "of the first rows; W reads every one"
        grave = sum(each.level != "good" for each in self.board.findings)
        left = Text(f"{grave} to decide" if grave else "nothing to decide", style=look.warn if grave else look.good)
        return spread(left.append(f"  {of}", style=look.dim), self._place(look), width, look)

    def _place(self, look: Look) -> Text:
        return Text(f"{self.cursor + 1}/{len(self.board.findings)}", style=look.dim)

    def _block(self, index: int, width: int, look: Look) -> list[Text]:
        each = self.board.findings[index]
        glyph, style = sign_of(each, look)
        if index != self.cursor:
            line = Text(no_wrap=True).append(f"{glyph} ", style=style).append(drawable(each.title, look))
            return [cut(line, width, look)]
        lines = []
        for number, part in enumerate(Text(drawable(each.title, look)).wrap(self.app.console, width - 2)):
            line = Text(no_wrap=True).append("  " if number else f"{glyph} ", style=style).append_text(part)
            line.truncate(width, pad=True)
            line.stylize_before(look.selected)
            lines.append(line)
        if each.fix is not None:
            fix = Text("    f ", style=look.accent).append(drawable(each.fix.label, look), style=look.strong)
            lines.append(cut(fix, width, look))
        for detail in each.advice:
            lines += [
                Text("    ", style=look.dim).append_text(line)
                for line in Text(drawable(detail, look)).wrap(self.app.console, max(8, width - 4))
            ]
        return lines + [
            cut(Text("    " + drawable(detail, look), style=look.dim), width, look) for detail in each.detail
        ]


def bar_text(share: float, cells: int, look: Look) -> Text:
    """How much of something is done, as a bar."""
    filled = round(share * cells)
    bar = Text(no_wrap=True).append(look.glyph("█", "#") * filled, style=look.accent)
    return bar.append(look.glyph("░", ".") * (cells - filled), style=look.faint)


def sign_of(finding: Finding, look: Look) -> tuple[str, str]:
    """The sign of a finding's level, and its style."""
    return {
        "bad": (look.glyph("✗", "x"), look.bad),
        "warn": ("!", look.warn),
        "good": (look.glyph("✓", "+"), look.good),
    }[finding.level]
