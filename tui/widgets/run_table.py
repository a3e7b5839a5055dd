"""The table of runs on Home: newest first, a row a run, a cursor, and the columns that there is room for."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.message import Message

from tui.format import duration_text, loss_text, moment_text, ordinal_text, steps_text
from tui.run_words import ASCII_STALL_GLYPH, CAUSE_WORDS, STALL_GLYPH, held_word, why_words
from tui.seal_words import WORDS
from tui.seal_words import glyph as seal_glyph
from tui.theme import Look
from tui.widgets.painted import Painted, cut, fit, right

if TYPE_CHECKING:
    from engine.run.summary import RunSummary

GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    title: str
    width: int
    from_width: int = 0
    """The table width from which this column is shown."""
    numeric: bool = False


COLUMNS = (
    Column("method", "method", 6),
    Column("model", "model", 20, from_width=116),
    Column("data", "data", 20, from_width=140),
    Column("step", "step", 13, numeric=True),
    Column("loss", "loss", 6, numeric=True),
    Column("held_out", "held-out", 8, numeric=True),
    Column("left", "left", 10, from_width=66, numeric=True),
    Column("started", "started", 16, from_width=116),
)
NAME_WIDTHS = (12, 34)
STATE_WIDTH = 11
SENTENCE_WIDTH = 40
"""Of a sentence that is cut shorter, too little is left."""


class RunTable(Painted):
    """Shows `runs`; `run` is the one under the cursor."""

    DEFAULT_CSS = "RunTable { height: 1fr; width: 1fr; padding: 0 1; }"

    class Moved(Message):
        """The cursor is on another run."""

    class Opened(Message):
        """A row was clicked that the cursor was on already."""

    def __init__(self, *, id: str | None = None):
        super().__init__(id=id)
        self.runs: tuple[RunSummary, ...] = ()
        self.empty_text = ""
        self._cursor = 0
        self._top = 0

    @property
    def run(self) -> RunSummary | None:
        return self.runs[self._cursor] if self.runs else None

    def show(self, runs: tuple[RunSummary, ...], empty_text: str) -> None:
        """Show these runs; the cursor stays on the run it was on, if that is still there."""
        current = self.run and self.run.path
        self.runs, self.empty_text = runs, empty_text
        paths = [run.path for run in runs]
        self._cursor = paths.index(current) if current in paths else min(self._cursor, max(0, len(runs) - 1))
        self.repaint()

    def move(self, rows: int) -> None:
        """Move the cursor by so many rows, as far as there are any."""
        self._cursor = max(0, min(len(self.runs) - 1, self._cursor + rows))
        self.repaint()
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        row = self._top + event.y - 1
        if 0 <= row < len(self.runs):
            opened = row == self._cursor
            self.move(row - self._cursor)
            if opened:
                self.post_message(self.Opened())

    def on_mouse_scroll_down(self) -> None:
        self.move(1)

    def on_mouse_scroll_up(self) -> None:
        self.move(-1)

    def paint(self, width: int, height: int) -> list[Text]:
        look = self.look
        columns = [self._fitted(column) for column in COLUMNS if width >= column.from_width]
        rest = width - sum(column.width + len(GAP) for column in columns) - len(GAP)
        longest = max((cell_len(run.spec_name) for run in self.runs), default=0)
        name_width = max(NAME_WIDTHS[0], min(NAME_WIDTHS[1], longest, rest - STATE_WIDTH))
        state_width = max(1, rest - name_width)
        title = [fit("run", name_width, look)]
        title += [(right if each.numeric else fit)(each.title, each.width, look) for each in columns]
        lines = [cut(Text(GAP.join([*title, "state"]), style=look.dim), width, look)]
        if not self.runs:
            wrapped = textwrap.wrap(self.empty_text, max(10, width))
            return [*lines, Text(), *[Text(line, style=look.dim) for line in wrapped]]
        rows = max(1, height - 1)
        self._top = max(0, min(self._top, self._cursor, len(self.runs) - rows), self._cursor - rows + 1)
        for index, run in enumerate(self.runs[self._top : self._top + rows], start=self._top):
            lines.append(self._row(run, columns, name_width, state_width, index == self._cursor, look, width))
        return lines

    def _fitted(self, column: Column) -> Column:
        """The column as wide as what stands in it, and no wider than it may be."""
        widest = max((cell_len(_cell(run, column.name)) for run in self.runs), default=0)
        return replace(column, width=max(len(column.title), min(column.width, widest)))

    def _row(
        self,
        run: RunSummary,
        columns: list[Column],
        name_width: int,
        state_width: int,
        selected: bool,
        look: Look,
        width: int,
    ) -> Text:
        row = Text(no_wrap=True)
        row.append(fit(run.spec_name, name_width, look), style=look.strong if selected else "")
        state, state_style = _state(run, look)
        if run.doing and cell_len(state) > state_width and columns[-1].name == "left":
            # It is told where the time left stands in other rows: that is not known before the trainer goes on.
            state_width += len(GAP) + columns[-1].width
            columns = columns[:-1]
        for column in columns:
            text = _cell(run, column.name)
            style = look.dim if text == "-" or column.name in ("method", "model", "data", "started") else ""
            style = look.bad if text == "nan" else style
            row.append(GAP).append((right if column.numeric else fit)(text, column.width, look), style=style)
        row.append(GAP).append(state, style=state_style)
        room = state_width - cell_len(state)
        if run.seal_broken:
            alarm = f" {seal_glyph(run.seal, look)} {WORDS[run.seal]}"
            row.append(alarm, style=look.bad)
            room -= cell_len(alarm)
        if room > 8 and (why := _why(run, room)):
            row.append(fit(f": {why}", room, look).rstrip(), style=look.dim)
        row.truncate(width, pad=True)
        if selected:
            row.stylize_before(look.selected)
        return row


def _state(run: RunSummary, look: Look) -> tuple[str, str]:
    """A run's state with its glyph, and the style of both."""
    if held := held_word(run):
        return f"{look.glyph(STALL_GLYPH, ASCII_STALL_GLYPH)} {held}", look.warn
    glyph, style = look.state(run.state)
    place = f" {ordinal_text(run.place)}" if run.place is not None else ""
    return f"{glyph} {run.doing or run.state}{place}", style


def _why(run: RunSummary, room: int) -> str:
    """Why it is as it is, where that is worth a place here; where there is little, the word for the cause if that has
    room."""
    held = held_word(run)
    if run.state not in ("failed", "queued") and not held:
        return ""
    if room < SENTENCE_WIDTH and (held or run.cause in CAUSE_WORDS):
        word = CAUSE_WORDS.get(run.cause, "")
        return word if cell_len(f": {word}") <= room else ""
    return why_words(run.cause, run.why)


def _cell(run: RunSummary, name: str) -> str:
    if name == "step":
        return steps_text(run.step, run.planned_steps)
    if name == "loss":
        return loss_text(run.loss, "nan" if run.step and run.state == "failed" else "-")
    if name == "held_out":
        return loss_text(run.held_out_loss)
    if name == "left":
        return duration_text(run.seconds_left)
    if name == "started":
        return moment_text(run.started_at)
    return str(getattr(run, name))
