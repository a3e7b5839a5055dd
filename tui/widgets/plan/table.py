"""The plan's ranked table: a row a profile with its memory bar, and the columns that there is room for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from tui import plan_words as words
from tui.format import bytes_text, compact_text, count_text
from tui.theme import Look
from tui.widgets.memory_bar import render_memory_bar
from tui.widgets.new_run.text import drawable
from tui.widgets.painted import Painted, cut, fit, right

if TYPE_CHECKING:
    from profiles.planner import Profile
    from tui.widgets.plan.board import Board, Row

GAP = "  "
BAR_WIDTHS = (7, 60)
NARROW = 66
"""Below this width there is room for two numbers only: the peak, and the time or, without data, the speed."""
WIDE = 100
"""From this width on a profile that does not fit has its numbers in the columns, not a sentence across them."""


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    text: Callable[[Profile], str]
    numeric: bool = True
    from_width: int = 0
    """The table width from which this column is shown."""


def _rows_text(profile: Profile) -> str:
    return f"{profile.settings.micro_batch} x {profile.settings.gradient_accumulation}"


def _recompute_text(profile: Profile) -> str:
    every = profile.settings.gradient_checkpointing
    text = {0: "none", 1: "all"}.get(every, f"1 in {every}")
    return f"{text}, offload" if every and profile.settings.offload_checkpoints else text


PROFILE = Column("profile", lambda profile: profile.name, numeric=False)
METHOD = Column("method", lambda profile: words.method_words(profile.settings), numeric=False)
# In a narrow table the numbers to their right must not be pushed out.
SHORT_PROFILE = Column("profile", lambda profile: profile.name.removeprefix("recipe: "), numeric=False)
SHORT_METHOD = Column("method", lambda profile: words.method_words(profile.settings, short=True), numeric=False)
SHORT_NAME = 15
NUMBERS = (
    Column("peak", lambda profile: bytes_text(profile.peak_bytes)),
    Column("headroom", lambda profile: bytes_text(profile.headroom_bytes), from_width=NARROW),
    Column("tok/s", words.rate_words),
    Column("time", words.time_words),
    Column("trained", lambda profile: compact_text(profile.trainable_parameters), from_width=WIDE),
    Column("length", lambda profile: count_text(profile.settings.sequence_length), from_width=128),
    Column("rows", _rows_text, from_width=128),
    Column("recompute", _recompute_text, numeric=False, from_width=140),
    Column("optimizer", lambda profile: profile.settings.optimizer, numeric=False, from_width=152),
    Column("state", words.state_words, numeric=False, from_width=112),
)


class PlanTable(Painted, can_focus=True):
    """Shows a Board's rows. The cursor's row is the profile that Enter takes and that the settings below change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "down", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("g,home", "move(-99)", "top", show=False),
        Binding("G,end", "move(99)", "bottom", show=False),
    ]
    DEFAULT_CSS = "PlanTable { height: 1; width: 1fr; padding: 0 1; }"

    class Moved(Message):
        """The cursor stands on another profile."""

    def __init__(self, *, id: str | None = None):
        super().__init__(id=id)
        self._board: Board | None = None
        self._top = 0

    def show(self, board: Board) -> None:
        self._board = board
        self.styles.height = 1 + len(board.rows)
        self.repaint()

    def action_move(self, rows: int) -> None:
        if self._board is not None:
            self._board.move(rows)
            self.repaint()
            self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        row = self._top + event.y - 1
        if self._board is not None and 0 <= row < len(self._board.rows):
            self.action_move(row - self._board.cursor)

    def paint(self, width: int, height: int) -> list[Text]:
        board, look = self._board, self.look
        if board is None:
            return []
        profiles = [row.shown for row in board.rows]
        layout = _layout(profiles, width, with_time=bool(board.plan.job.rows))
        rows = max(1, height - 1)
        self._top = max(0, min(self._top, board.cursor, len(board.rows) - rows), board.cursor - rows + 1)
        place = f" {board.cursor + 1}/{len(board.rows)}" if rows < len(board.rows) else ""
        lines = [_header(layout, place, look)]
        scale = words.bar_scale(board.plan, profiles)
        for index, row in enumerate(board.rows[self._top : self._top + rows], start=self._top):
            line = _row(row, layout, scale, look)
            line.truncate(width, pad=True)
            if index == board.cursor:
                line.stylize_before(look.selected)
            lines.append(line)
        return [cut(line, width, look) for line in lines]


@dataclass(frozen=True, slots=True)
class _Layout:
    """The columns that there is room for, with their widths; the bar stands between the first two and the others."""

    name: Column
    method: Column
    numbers: tuple[Column, ...]
    widths: dict[str, int]
    bar_width: int
    sentences: bool
    """A profile that does not fit has a sentence in place of bar and numbers."""


def _layout(profiles: list[Profile], width: int, with_time: bool) -> _Layout:
    wide = width >= WIDE
    name, method = (PROFILE, METHOD) if wide else (SHORT_PROFILE, SHORT_METHOD)
    left_out = {"tok/s"} if with_time and width < NARROW else set() if with_time else {"time"}
    numbers = tuple(each for each in NUMBERS if width >= each.from_width and each.title not in left_out)
    widths = {each.title: _width(each, profiles) for each in (name, method, *numbers)}
    if not wide:
        widths["profile"] = min(widths["profile"], SHORT_NAME)
    # A glyph and a mark before the name; a gap before each column.
    taken = 2 + sum(widths.values()) + len(GAP) * (len(numbers) + 2)
    bar_width = max(BAR_WIDTHS[0], min(BAR_WIDTHS[1], width - taken))
    return _Layout(name, method, numbers, widths, bar_width, sentences=not wide)


def _header(layout: _Layout, place: str, look: Look) -> Text:
    widths = layout.widths
    parts = [fit(f"profile{place}", widths["profile"] + 2, look), fit("method", widths["method"], look)]
    parts.append(fit("memory", layout.bar_width, look))
    parts += [(right if each.numeric else fit)(each.title, widths[each.title], look) for each in layout.numbers]
    return Text(no_wrap=True).append(GAP.join(parts), style=look.dim)


def _row(row: Row, layout: _Layout, scale: words.BarScale, look: Look) -> Text:
    profile, widths = row.shown, layout.widths
    state = look.good if profile.fits else look.bad
    line = Text(no_wrap=True)
    line.append(look.glyph(words.FITS, "+") if profile.fits else look.glyph(words.NO_FIT, "x"), style=state)
    line.append("*" if row.changes else " ", style=look.accent)
    name = fit(drawable(layout.name.text(profile), look), widths["profile"], look)
    line.append(name, style=look.strong if profile.fits else "").append(GAP)
    line.append(fit(layout.method.text(profile), widths["method"], look), style=look.dim).append(GAP)
    if not profile.fits and layout.sentences:
        return line.append(words.room_words(profile), style=state)
    line.append_text(
        render_memory_bar(
            profile.estimate.components,
            scale.total_bytes,
            layout.bar_width,
            others_bytes=scale.others_bytes,
            look=look,
            cut=scale.cut,
        )
    )
    for column in layout.numbers:
        text = (right if column.numeric else fit)(column.text(profile), widths[column.title], look)
        line.append(GAP).append(text, style=_style(column, profile, look))
    return line


def _width(column: Column, profiles: list[Profile]) -> int:
    return max(cell_len(column.title), *(cell_len(column.text(profile)) for profile in profiles), 0)


def _style(column: Column, profile: Profile, look: Look) -> str:
    if column.title in ("headroom", "state"):
        return look.good if profile.fits else look.bad
    return look.strong if column.title == "peak" else look.dim if not column.numeric else ""
