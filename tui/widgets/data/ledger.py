"""The foot of the Data screen: where the rows go, in counts that add up, and the warnings with their fix."""

from __future__ import annotations

import textwrap

from rich.text import Text

from tui.format import compact_text, count_text, counted
from tui.theme import Look
from tui.widgets.data.board import Counts, DataBoard
from tui.widgets.data.findings import Finding, warnings_of
from tui.widgets.data.report import bar_text, sign_of
from tui.widgets.new_run.text import drawable
from tui.widgets.painted import Painted, cut, spread

BAR = 12
"""Cells of the bar in the rule."""
BESIDE = 3
"""Lines of a ledger with a warning besides the warning: the rule, the counts and the fix."""
MOST_LINES = 3
"""Of the chosen warning, the places that it names among them; all of a sentence of 200 characters at 80 columns."""


class DataLedger(Painted):
    """Shows one warning at 80x24, and as many as there is room for in a larger terminal. The chosen one is told whole:
    for a long one the ledger grows."""

    DEFAULT_CSS = "DataLedger { height: 4; width: 1fr; padding: 0 1; }"

    def __init__(self, board: DataBoard, id: str | None = None):
        super().__init__(id=id)
        self.board = board
        self._chosen = 0

    @property
    def warning(self) -> Finding | None:
        """The warning that f would mend."""
        warnings = warnings_of(self.board)
        return warnings[self._chosen % len(warnings)] if warnings else None

    def next_warning(self) -> None:
        self._chosen = (self._chosen + 1) % max(1, len(warnings_of(self.board)))
        self.repaint()

    def repaint(self) -> None:
        warning = self.warning
        lines = len(self._said(warning, self.size.width)) if warning is not None and self.size.width else 1
        if self.styles.min_height is None or self.styles.min_height.value != BESIDE + lines:
            self.styles.min_height = BESIDE + lines
        super().repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        look = self.look
        lines = [self._rule(width, look), self._counts(width, look)]
        warnings = warnings_of(self.board)
        self._chosen %= max(1, len(warnings))
        if not warnings:
            known = self.board.counts() is not None
            return [*lines, Text("nothing to warn of" if known else "", style=look.dim)]
        said = self._said(warnings[self._chosen], width)
        room = max(1, height - BESIDE - len(said) + 1)
        first = max(0, min(self._chosen, len(warnings) - room))
        for index, each in enumerate(warnings[first : first + room], first):
            glyph, style = sign_of(each, look)
            if index == self._chosen:
                lines.append(Text.assemble((f"{glyph} {said[0]}", style)))
                lines += [Text.assemble((f"  {more}", style)) for more in said[1:]]
                lines.append(self._fix(each, len(warnings), width, look))
            else:
                line = Text.assemble((f"{glyph} ", style), (drawable(each.title, look), look.dim))
                lines.append(cut(line, width, look))
        return lines

    def _said(self, warning: Finding, width: int) -> list[str]:
        """The sentence in lines, as many as a terminal of this height has room for."""
        most = MOST_LINES if self.app.size.height >= 24 else 1
        room, title = max(16, width - 2), drawable(warning.title, self.look)
        end = self.look.ellipsis
        return textwrap.wrap(title, room, break_on_hyphens=False, max_lines=most, placeholder=end) or [""]

    def _rule(self, width: int, look: Look) -> Text:
        """A rule, in which stands how far the preparation of every row is while it goes on."""
        rule, progress = look.glyph("─", "-"), self.board.progress
        if progress is None:
            return Text(rule * width, style=look.faint)
        what, *more = progress.words()
        line = Text(f"{rule * 2} ", style=look.faint, no_wrap=True).append(f"{what} ", style=look.accent)
        line.append_text(bar_text(progress.share, BAR, look)).append(
            f" {look.separator.join(more)} " if more else " ", style=look.dim
        )
        return cut(line.append(rule * max(0, width - line.cell_len)), width, look)

    def _counts(self, width: int, look: Look) -> Text:
        counts = self.board.counts()
        if counts is None:
            problem = self.board.problem()
            said = "cannot be read" if problem is not None else f"reading {look.ellipsis}"
            return Text(said, style=look.bad if problem is not None else look.dim)
        return cut(counts_line(counts, look), width, look)

    def _fix(self, each: Finding, count: int, width: int, look: Look) -> Text:
        assert each.fix is not None
        left = Text(no_wrap=True).append("  f ", style=look.accent).append(drawable(each.fix.label, look))
        right = Text()
        if count > 1:
            right.append("w ", style=look.accent).append(f"next of {count} warnings", style=look.dim)
        return spread(left, right, width, look)


def counts_line(counts: Counts, look: Look) -> Text:
    """ "✓ 4,712 whole + ! 90 cut + ✗ 10 set aside = 4,812 rows", with what the rest is where not all were read."""
    about = "" if counts.exact else "about "
    line = Text(no_wrap=True).append(f"{look.glyph('✓', '+')} {about}{count_text(counts.whole)} whole", style=look.good)
    line.append(
        f" + ! {about if counts.cut else ''}{count_text(counts.cut)} cut", style=look.warn if counts.cut else look.dim
    )
    style = look.bad if counts.aside else look.dim
    line.append(f" + {look.glyph('✗', 'x')} {count_text(counts.aside)} set aside", style=style)
    if counts.left_out:
        line.append(" + ", style=look.dim).append(f"{count_text(counts.left_out)} left out", style=look.dim)
    line.append(f" = {counted(counts.rows, 'row')}", style=look.strong)
    if counts.estimated_rows is not None:
        line.append(f" read of about {compact_text(counts.estimated_rows)}", style=look.dim)
    if counts.held_out is not None:
        line.append(f"{look.separator}{count_text(counts.held_out)} of them held out", style=look.dim)
    if counts.in_held_out_file is not None:
        line.append(f"{look.separator}{count_text(counts.in_held_out_file)} more held out", style=look.dim)
    return line
