"""The lengths view: how long the rows are, and what the chosen sequence length cuts."""

from __future__ import annotations

from rich.text import Text

from tui.format import compact_text, count_text, counted, share_text
from tui.theme import Look
from tui.widgets.data.length_table import Bar, LengthTable, edges_of, moved
from tui.widgets.data.view import DataView
from tui.widgets.painted import cut, right

EIGHTHS = " ▏▎▍▌▋▊▉█"


class LengthsView(DataView):
    keys = ("less", "more")
    change_word = "length"

    def why_not(self, name: str) -> str | None:
        return "the lengths are not counted yet" if self.board.lengths is None else None

    def change(self, direction: int) -> None:
        self.board.set("data.sequence_length", moved(self.board.sequence_length, direction))
        self.post_message(self.Changed())
        self.repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        look, table = self.look, self.board.lengths
        if table is None:
            return [Text(f"counting {look.ellipsis}", style=look.dim)]
        if not table.rows:
            return [Text("No row can be used, so that there are no lengths.", style=look.dim)]
        lines = self._facts(table, width, look)
        lines.append(Text())
        lines += self._histogram(table, width, height - len(lines), look)
        return [cut(line, width, look) for line in lines]

    def _facts(self, table: LengthTable, width: int, look: Look) -> list[Text]:
        of = "" if table.complete else "the first "
        spans = ((0.5, "half"), (0.9, "90 %"), (0.99, "99 %"))
        shares = "  ".join(f"{word} {look.glyph('≤', '<=')} {table.quantile(share):,}" for share, word in spans)
        first = Text().append(f"{of}{counted(table.rows, 'row')}", style=look.strong)
        first.append(f"{look.separator}{compact_text(table.units)} {table.unit}{look.separator}", style=look.dim)
        first.append(f"{shares}  longest {table.longest:,}", style=look.dim)
        if table.unit == "characters":
            said = "Characters, not tokens: press M and choose the model to count its tokens."
            return [first, Text(said, style=look.warn)]
        length = self.board.sequence_length
        rows, units = table.cut_rows(length), table.cut_units(length)
        sign = look.glyph("✓", "+") if not rows else "!"
        state = look.good if not rows else look.warn
        second = Text().append("< ", style=look.accent).append(f"{length:,} tokens", style=look.strong)
        second.append(" >", style=look.accent).append("   ")
        if self.board.is_divided:
            second.append(f"{look.glyph('✓', '+')} longer texts are learnt in several parts", style=look.good)
        elif not rows:
            second.append(f"{sign} every row is read to its end", style=state)
        else:
            cut_share = share_text(round(rows / table.rows, 4))
            second.append(f"{sign} {counted(rows, 'row')} ({cut_share}) cut", style=state)
            lost = share_text(round(units / table.units, 4))
            second.append(f"{look.separator}{compact_text(units)} tokens ({lost}) not learnt", style=look.dim)
        chosen = "data.sequence_length" in self.board.settings
        said = "your choice" if chosen else "the plan proposes a length that suits memory; < and > choose one yourself"
        return [first, second, Text(said, style=look.dim)]

    def _histogram(self, table: LengthTable, width: int, height: int, look: Look) -> list[Text]:
        length = self.board.sequence_length
        tokens = table.unit == "tokens"
        ends = {table.longest, *({length} if tokens else ())}
        bars = table.bars([*edges_of(2), *ends])
        for finer in (4, 8):  # as fine as there is room for
            more = table.bars([*edges_of(finer), *ends])
            bars = more if len(more) < height else bars
        bars = _as_many(bars, height - 1, length if tokens else None)
        most = max(bar.rows for bar in bars)
        label = max(len(f"{bar.upto:,}") for bar in bars)

        def is_cut(bar: Bar) -> bool:
            return tokens and bar.above >= length and not self.board.is_divided

        lines = []
        for bar in bars:
            if tokens and bar.above == length and not self.board.is_divided:
                lines.append(_limit(length, width, look))
            lines.append(_line(bar, table, most, label, width, is_cut(bar), look))
        if tokens and bars[-1].upto <= length:
            lines.append(_limit(length, width, look))
        return lines[:height]


def _as_many(bars: list[Bar], rows: int, keep: int | None) -> list[Bar]:
    """`bars` joined until they have room in so many rows; `keep` stays an edge.

    The shortest are joined first: they fit whatever the length is.
    """
    bars = list(bars)
    while len(bars) > max(3, rows):
        at = 1 if bars[0].upto == keep else 0
        one, other = bars[at : at + 2]
        bars[at : at + 2] = [Bar(one.above, other.upto, one.rows + other.rows)]
    return bars


def _limit(length: int, width: int, look: Look) -> Text:
    rule = look.glyph("─", "-")
    line = Text(no_wrap=True).append(f"{rule * 2} cut here: {length:,} ", style=look.accent)
    return line.append(rule * max(0, width - line.cell_len), style=look.accent)


def _line(bar: Bar, table: LengthTable, most: int, label: int, width: int, is_cut: bool, look: Look) -> Text:
    line = Text(no_wrap=True).append(f"{look.glyph('≤', '<=')} {bar.upto:>{label},}  ", style=look.dim)
    numbers = (
        f"  {right(count_text(bar.rows), 11, look)}  {right(share_text(round(bar.rows / table.rows, 3)), 6, look)}"
    )
    word = "  cut" if is_cut else "     "
    room = max(4, width - line.cell_len - len(numbers) - len(word))
    line.append(_bar(bar.rows / most * room, room, look), style=look.warn if is_cut else look.components["weights"])
    line.append(numbers, style="" if bar.rows else look.dim)
    return line.append(word, style=look.warn)


def _bar(cells: float, room: int, look: Look) -> str:
    if look.ascii:
        return ("#" * max(round(cells), 1 if cells else 0)).ljust(room)
    eighths = max(round(cells * 8), 1 if cells else 0)
    whole, part = divmod(eighths, 8)
    return ("█" * whole + (EIGHTHS[part] if part else "")).ljust(room)
