"""A row a model (or a card) and a column a method: what fits, at which peak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from tui import plan_words as words
from tui.format import bytes_text, rate_text
from tui.plan_views import HERE, smallest
from tui.theme import Look
from tui.widgets.new_run.text import drawable, wrapped
from tui.widgets.painted import Painted, cut, fit, right

if TYPE_CHECKING:
    from profiles.planner import Profile
    from tui.plan_views import ViewRow

GAP = "  "
BETWEEN = "   "
PEAK_WIDTH, RATE_WIDTH = 10, 13
RATES_FROM = 128
"""From this width on each cell has the speed behind the peak."""
NARROW = 66
"""Below this width only the row under the cursor has its facts."""
NAME_WIDTHS = (12, 40)
DETAIL_ROWS = 4
"""A blank line, then three about the row under the cursor."""


class PlanMatrix(Painted, can_focus=True):
    """Shows rows as they come; `row` is the one under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "down", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("pagedown,ctrl+d", "move(10)", "page down", show=False),
        Binding("pageup,ctrl+u", "move(-10)", "page up", show=False),
        Binding("g,home", "move(-999)", "top", show=False),
        Binding("G,end", "move(999)", "bottom", show=False),
    ]
    DEFAULT_CSS = "PlanMatrix { height: 1fr; width: 1fr; padding: 0 1; }"

    class Moved(Message):
        """The cursor stands on another row."""

    def __init__(self, title: str, facts: Sequence[str], *, id: str | None = None):
        super().__init__(id=id)
        self._title, self._facts = title, facts
        self._rows: list[ViewRow] = []
        self._cursor = 0
        self._top = 0
        self._done = False

    @property
    def row(self) -> ViewRow | None:
        return self._rows[self._cursor] if self._rows else None

    def clear(self) -> None:
        self._rows, self._cursor, self._top, self._done = [], 0, 0, False
        self.repaint()

    def add(self, rows: Sequence[ViewRow], done: bool = False) -> None:
        """Show further rows; `done` says that these are the last."""
        self._rows += rows
        self._done = done
        self.repaint()

    def action_move(self, rows: int) -> None:
        self._cursor = max(0, min(len(self._rows) - 1, self._cursor + rows))
        self.repaint()
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        row = self._top + event.y - 2
        if 0 <= row < len(self._rows):
            self.action_move(row - self._cursor)

    def on_mouse_scroll_down(self) -> None:
        self.action_move(1)

    def on_mouse_scroll_up(self) -> None:
        self.action_move(-1)

    def paint(self, width: int, height: int) -> list[Text]:
        look = self.look
        cell = PEAK_WIDTH + (RATE_WIDTH if width >= RATES_FROM else 0)
        gap = GAP if width >= NARROW else GAP[1:]
        facts = self._facts if width >= RATES_FROM else self._facts[:1] if width >= NARROW else ()
        fact_widths = [
            max(len(name), *(cell_len(row.facts[index]) for row in self._rows), 0) for index, name in enumerate(facts)
        ]
        rest = width - sum(fact_widths) - len(words.METHODS) * (cell + len(gap)) - len(gap) * len(facts)
        name_width = max(NAME_WIDTHS[0], min(NAME_WIDTHS[1], rest))
        header = [fit(self._title, name_width, look)]
        header += [right(name, room, look) for name, room in zip(facts, fact_widths, strict=True)]
        header += [fit(method, cell, look) for method in words.METHODS]
        lines = [self._legend(width, look), Text().append(gap.join(header), style=look.dim)]
        if not self._rows:
            return [*lines, Text().append(f"working it out {look.ellipsis}", style=look.dim)]
        rows = max(1, height - len(lines) - DETAIL_ROWS)
        self._top = max(0, min(self._top, self._cursor, len(self._rows) - rows), self._cursor - rows + 1)
        for index, row in enumerate(self._rows[self._top : self._top + rows], start=self._top):
            name = row.name if len(row.name) <= name_width else row.name.rpartition("/")[2]
            line = Text(no_wrap=True)
            line.append(fit(drawable(name, look), name_width, look), style=look.strong if row.fits else look.dim)
            for text, room in zip(row.facts, fact_widths, strict=False):
                line.append(gap + right(drawable(text, look), room, look), style=look.dim)
            for method in words.METHODS:
                line.append(gap).append_text(self._cell(row.profiles.get(method), cell, look))
            line.truncate(width, pad=True)
            if index == self._cursor:
                line.stylize_before(look.selected)
            lines.append(line)
        lines += [Text()] * (2 + rows - len(lines))
        return [cut(line, width, look) for line in [*lines, *self._detail(width, look)]]

    def _detail(self, width: int, look: Look) -> list[Text]:
        """How the row under the cursor would be trained by the best method that fits, or what is missing."""
        row = self.row
        assert row is not None
        if not row.profiles:
            return [Text(), Text().append("No method can train it.", style=look.dim)]
        profile = (
            row.profiles[row.fits[0]] if row.fits else min(row.profiles.values(), key=lambda each: each.peak_bytes)
        )
        named = Text().append(row.name, style=look.strong)
        if width < NARROW:
            named.append(f" {row.facts[0]}", style=look.dim)
        state = words.room_words(profile)
        named.append(f"  {words.method_words(profile.settings)} {state}", style=look.good if profile.fits else look.bad)
        parts = [f"{words.rate_words(profile)} tok/s", *words.settings_words(profile.settings)]
        rest = look.separator.join(parts) if profile.fits else profile.missing
        more = [Text.assemble((str(line), look.dim)) for line in wrapped(rest, width, look)]
        return [Text(), named, *more[: DETAIL_ROWS - 2]]

    def _legend(self, width: int, look: Look) -> Text:
        legend = Text().append("peak memory; ", style=look.dim)
        legend.append(look.glyph(words.FITS, "+"), style=look.good).append(" fits, ", style=look.dim)
        legend.append(look.glyph(words.NO_FIT, "x"), style=look.bad).append(" does not fit", style=look.dim)
        if not self._done and self._rows:
            legend.append(f"{BETWEEN}{len(self._rows)} so far {look.ellipsis}", style=look.accent)
        elif self._rows and self._rows[0].name == HERE:
            found = smallest(self._rows)
            enough = [f"{each} {found[each].facts[0] if each in found else 'none'}" for each in reversed(words.METHODS)]
            answer = f"enough for {look.separator.join(enough)}" if found else "no card of the catalogue is enough"
            if legend.cell_len + len(BETWEEN) + len(answer) > width:
                return Text().append(answer, style=look.accent)
            legend.append(BETWEEN).append(answer, style=look.accent)
        return legend

    def _cell(self, profile: Profile | None, width: int, look: Look) -> Text:
        if profile is None:
            return Text().append("-".ljust(width), style=look.faint)
        glyph = look.glyph(words.FITS, "+") if profile.fits else look.glyph(words.NO_FIT, "x")
        cell = Text().append(glyph, style=look.good if profile.fits else look.bad)
        cell.append(bytes_text(profile.peak_bytes).rjust(PEAK_WIDTH - 1), style="" if profile.fits else look.dim)
        if width > PEAK_WIDTH:
            rate = rate_text(profile.speed.tokens_per_second) if profile.fits else ""
            cell.append(rate.rjust(RATE_WIDTH), style=look.dim)
        return cell
