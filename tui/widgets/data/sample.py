"""The sample view: rows of the source in a list, and the one under the cursor as it will be understood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from rich.text import Text

from tui.format import count_text, counted, share_text
from tui.theme import Look
from tui.widgets.data.board import DataBoard
from tui.widgets.data.content import Part, classes_of, on_terminal, parts_of
from tui.widgets.data.rows import FILTERS, PersonalSpan, RowsRead, SampleRow, Wanted
from tui.widgets.data.view import DataView
from tui.widgets.new_run.text import drawable
from tui.widgets.painted import cut, fit, right, spread

WIDE = 120
"""From this width on the row stands beside the list."""
LIST_WIDTH = 64
LABEL = 12
SHOWN_CHARACTERS = 20_000
"""Of one part of a row; who wants to read on opens the file."""


LOOKED_THROUGH = 4_000
"""Characters of one part of a row in which personal data is lit up: it takes 3 ms a thousand."""


class SampleView(DataView):
    keys = ("find", "filter", "down", "up", "first", "last", "page_down", "page_up")

    def __init__(self, board: DataBoard, find_personal: Callable[[str], Sequence[PersonalSpan]], id: str):
        super().__init__(board, id)
        self._find_personal = lru_cache(maxsize=64)(find_personal)
        self.rows: list[SampleRow] = []
        self.wanted = Wanted()
        self.cursor = 0
        self._read: RowsRead | None = None
        self._top = self._scroll = self._furthest = 0
        self._known_classes: list[str] = []

    @property
    def row(self) -> SampleRow | None:
        return self.rows[self.cursor] if self.rows else None

    def begin(self, wanted: Wanted) -> None:
        """Rows of another kind are on their way."""
        self.wanted, self.rows, self._read = wanted, [], None
        self.cursor = self._top = self._scroll = 0
        self.repaint()

    def add(self, read: RowsRead) -> None:
        self.rows += read.rows
        self._read = read
        self.repaint()

    def filters(self) -> list[str]:
        """What the rows can be narrowed to: the classes are those of the rows read so far."""
        classes = {name for row in self.rows if row.content is not None for name in classes_of(row.content)}
        if self.wanted.filter not in FILTERS:
            classes |= set(self._known_classes)
        self._known_classes = sorted(classes)
        return [*FILTERS, *self._known_classes]

    def move(self, rows: int) -> None:
        cursor = max(0, min(self.cursor + rows, len(self.rows) - 1))
        if cursor != self.cursor:
            self.cursor, self._scroll = cursor, 0
            self.post_message(self.Changed())
            self.repaint()

    def page(self, direction: int) -> None:
        self._scroll = max(0, min(self._scroll + direction * max(1, self.size.height // 2), self._furthest))
        self.repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        look = self.look
        if width >= WIDE:
            list_width = self._list_width(width)
            rows = [self._head(width, look), *self._list(list_width, height - 1, look)]
            row = self._detail(width - list_width - 3, height, look)
            joined = []
            for place in range(max(len(rows), len(row))):
                left = rows[place] if place < len(rows) else Text()
                left.truncate(list_width, pad=True)
                joined.append(Text.assemble(left, "   ", row[place] if place < len(row) else ""))
            return joined
        listed = max(3, min(height // 3, 8))
        lines = [self._head(width, look), *self._list(width, listed, look)]
        lines += [Text()] * (listed + 1 - len(lines))
        return [*lines, *self._detail(width, height - len(lines), look)]

    def _head(self, width: int, look: Look) -> Text:
        read, wanted = self._read, self.wanted
        left = Text()
        if not wanted.is_all:
            words = [wanted.filter] if wanted.filter != "all" else []
            words += [f"/{wanted.words}"] if wanted.words else []
            words += ["rows of the finding"] if wanted.lines else []
            left.append(drawable("  ".join(words), look), style=look.accent).append("  ")
        left.append(counted(len(self.rows), "row"), style=look.strong)
        if read is None:
            state = f"reading {look.ellipsis}"
        elif not read.done:
            state = f"searching, {share_text(round(read.share, 2))} of the file read"
        elif read.share >= 0.999:
            state = "of the whole file"
        else:
            part = round(read.share, 3)
            state = f"from the first {share_text(part)} of the file" if part else "from the beginning of the file"
        left.append(f"  {state}", style=look.dim)
        unit = "characters" if any(row.content is not None for row in self.rows) else ""
        if width < WIDE:
            return spread(left, Text(unit, style=look.dim), width, look)
        return spread(
            cut(left, self._list_width(width) - len(unit) - 2, look),
            Text(unit, style=look.dim),
            self._list_width(width),
            look,
        )

    def _list_width(self, width: int) -> int:
        """Of the list, where the row stands beside it."""
        return max(LIST_WIDTH, width * 2 // 5)

    def _list(self, width: int, height: int, look: Look) -> list[Text]:
        if not self.rows:
            done = self._read is not None and self._read.done
            nothing = "No row is like that; v shows others." if not self.wanted.is_all else "There are no rows."
            return [Text(nothing if done else "", style=look.dim)]
        self._top = max(0, min(self._top, self.cursor, len(self.rows) - height), self.cursor - height + 1)
        shown = self.rows[self._top : self._top + height]
        digits = max(4, len(count_text(max(row.line for row in self.rows))))
        ends = [_end(row) for row in shown]
        room = max(map(len, ends))
        return [
            self._line(row, (digits, right(end, room, look)), width, self._top + index == self.cursor, look)
            for index, (row, end) in enumerate(zip(shown, ends, strict=True))
        ]

    def _line(self, row: SampleRow, ends: tuple[int, str], width: int, selected: bool, look: Look) -> Text:
        """`ends`: the digits of the longest line number, and what stands at the right."""
        glyph, style = _state(row, look)
        digits, length = ends
        number = right(count_text(row.line), digits, look)
        room = max(4, width - 2 - len(number) - len(length) - 4)
        line = Text(no_wrap=True).append(f"{glyph} ", style=style).append(number, style=look.dim).append("  ")
        line.append(fit(drawable(row.beginning, look), room, look)).append("  ")
        line.append(length, style=style if row.content is None else look.dim)
        line.truncate(width, pad=True)
        if selected:
            line.stylize_before(look.selected)
        return line

    def _detail(self, width: int, height: int, look: Look) -> list[Text]:
        row = self.row
        if row is None or height < 2:
            return []
        rule = look.glyph("─", "-")
        title = Text(no_wrap=True).append(f"{rule}{rule} ", style=look.faint)
        title.append(f"{row.unit} {row.line:,}", style=look.strong)
        title.append(
            look.separator + (counted(row.characters, "character") if row.content else "set aside"), style=look.dim
        )
        title.append(f"{look.separator}{self.cursor + 1:,} of {len(self.rows):,}", style=look.dim)
        if kinds := self._personal_words(row):
            title.append(look.separator, style=look.dim).append(kinds, style=look.warn)
        body = self._body(row, width, look)
        self._furthest = max(0, len(body) - (height - 1))
        self._scroll = min(self._scroll, self._furthest)
        rest = len(body) - self._scroll - (height - 1)
        more = f" {counted(rest, 'more line')} " if rest > 0 else ""
        title.append(" ").append(rule * max(0, width - title.cell_len - len(more)), style=look.faint)
        title.append(more, style=look.dim)
        return [cut(title, width, look), *body[self._scroll : self._scroll + height - 1]]

    def _body(self, row: SampleRow, width: int, look: Look) -> list[Text]:
        if row.content is None:
            lines = Text(drawable(f"This {row.unit} {row.reason}.", look), style=look.bad).wrap(self.app.console, width)
            said = Text(drawable(on_terminal(row.excerpt, SHOWN_CHARACTERS), look), style=look.dim)
            return [*lines, Text(), *said.wrap(self.app.console, width)]
        return [line for part in parts_of(row.content) for line in self._part(part, width, look)]

    def _personal_words(self, row: SampleRow) -> str:
        """What personal data the row holds: "personal: e-mail addresses, names"."""
        if row.content is None:
            return ""
        texts = (on_terminal(part.text, SHOWN_CHARACTERS)[:LOOKED_THROUGH] for part in parts_of(row.content))
        kinds = dict.fromkeys(kind for text in texts for _, _, kind in self._find_personal(text))
        return f"personal: {', '.join(kinds)}" if kinds else ""

    def _part(self, part: Part, width: int, look: Look) -> list[Text]:
        mark = look.glyph("●", "*") if part.learnt else look.glyph("○", "o")
        style = look.accent if part.learnt else look.dim
        shown = on_terminal(part.text, SHOWN_CHARACTERS)
        text = Text(drawable(shown, look), style="" if part.learnt else look.dim)
        if len(text) == len(shown):  # an ASCII terminal's text can be longer, and then places in it are others
            for start, end, _ in self._find_personal(shown[:LOOKED_THROUGH]):
                text.stylize(f"{look.warn} underline", start, end)
        lines = []
        for number, line in enumerate(text.wrap(self.app.console, max(8, width - LABEL)) or [Text()]):
            label = Text(fit("" if number else f"{mark} {part.word}", LABEL, look), style=style)
            lines.append(cut(label.append_text(line), width, look))
        return lines


def _end(row: SampleRow) -> str:
    return count_text(row.characters) if row.content is not None else "set aside"


def _state(row: SampleRow, look: Look) -> tuple[str, str]:
    if row.content is None:
        return look.glyph("✗", "x"), look.bad
    return look.glyph("✓", "+"), look.good
