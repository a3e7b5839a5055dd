"""The mix view: how much of each source an epoch has, what is held out, and what becomes of the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from profiles.problem import printable
from tui.format import compact_text, count_text, share_text
from tui.theme import Look
from tui.widgets.data.board import OF_TOKENS, DataBoard, SourceState
from tui.widgets.data.view import DataView
from tui.widgets.new_run.text import drawable
from tui.widgets.painted import cut, fit, right

WEIGHTS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 10.0, 20.0, 50.0, 100.0)
REPEATS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 10.0)
LABEL = 20
NUMBERS = 49
"""Columns that a source's numbers take."""
LEAST_NAME, MOST_NAME = 9, 48


@dataclass(frozen=True, slots=True)
class Choice:
    """A setting of the data section with the values it can have."""

    field: str
    label: str
    values: tuple[Any, ...]
    show: Callable[[Any], str]
    meaning: str


def _words(**words: str) -> Callable[[Any], str]:
    return lambda value: words.get(str(value), str(value))


def _one_of(before: str) -> Callable[[Any], str]:
    return lambda column: f"{before} {printable(column, 40)}" if column else "-"


def choices(columns: Sequence[str], templates: Sequence[str]) -> list[Choice]:
    """Every choice, where the data has these columns and finetui knows these chat templates."""
    return [
        Choice("data.rows", "rows", (None, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000, 100_000),
               lambda value: f"{value:,} of them" if value else "all of them",
               "A small run first; a later one with more rows includes these."),
        Choice("data.held_out_share", "held out", (0.0, 0.01, 0.02, 0.05, 0.1, 0.2),
               lambda value: share_text(value) if value else "none",
               "Rows set aside to measure by, chosen by what is in them."),
        Choice("data.group_by", "kept together", (None, *columns), _one_of("rows of one"),
               "Rows with the same value of this column are all trained on or all held out."),
        Choice("data.stratify_by", "in balance", (None, *columns), _one_of("by"),
               "Each value of this column is held out in the same share."),
        Choice("data.duplicates", "copies", ("keep", "drop_exact", "drop_near"),
               _words(keep="kept", drop_exact="exact ones set aside", drop_near="near ones set aside too"),
               "What becomes of a row that repeats an earlier one."),
        Choice("data.personal", "personal data", ("leave", "mask", "pseudonymise"),
               _words(leave="left as it is", mask="masked, as [EMAIL]", pseudonymise="replaced, the same for the same"),
               "Names, addresses, numbers and secrets in the text; the file itself is never changed."),
        Choice("data.train_on", "learnt", ("answers", "last_answer", "everything"),
               _words(answers="all answers", last_answer="the last answer", everything="everything"),
               "Which tokens of a conversation carry loss; the X-ray shows it."),
        Choice("data.chat_template", "chat template", ("model", *templates),
               _words(model="the model's own"), "How a conversation is written for the model."),
        Choice("data.max_rejected_share", "may be set aside", (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5), share_text,
               "The run stops before training when a larger share of rows cannot be used."),
    ]  # fmt: skip


class MixView(DataView):
    keys = ("less", "more", "add", "remove", "reset", "down", "up", "first", "last")

    def __init__(self, board: DataBoard, templates: Sequence[str], id: str):
        super().__init__(board, id)
        self._templates = templates
        self.cursor = 0
        self._top = 0

    @property
    def _on_source(self) -> int | None:
        return self.cursor if self.cursor < len(self.board.sources) else None

    def _choices(self) -> list[Choice]:
        names = dict.fromkeys(
            column.name for state in self.board.sources if state.found for column in state.found.columns
        )
        return choices(tuple(names), self._templates)

    def why_not(self, name: str) -> str | None:
        if name == "remove":
            if self._on_source is None:
                return "the cursor stands on no file"
            return "it is the only one" if len(self.board.sources) == 1 else None
        return None

    def move(self, rows: int) -> None:
        self.cursor = max(0, min(self.cursor + rows, len(self.board.sources) + len(self._choices()) - 1))
        source = self._on_source
        if source is not None and source != self.board.shown:
            self.board.shown = source
            self.post_message(self.Reread())
        self.repaint()

    def take_out(self) -> None:
        """Take the file under the cursor off the table."""
        if self.why_not("remove") is None:
            del self.board.sources[self.cursor]
            self.board.shown = min(self.board.shown, len(self.board.sources) - 1)
            self.board.forget()
            self.post_message(self.Reread())
            self.repaint()

    def change(self, direction: int) -> None:
        source = self._on_source
        if source is not None:
            self._change_share(source, direction)
        else:
            choice = self._choices()[self.cursor - len(self.board.sources)]
            if choice.field == "data.held_out_share" and self.board.held_out is not None:
                self.board.held_out = None  # from the file back to a share of the rows
            else:
                now = self.board.value(choice.field)
                at = choice.values.index(now) if now in choice.values else 0
                self.board.set(choice.field, choice.values[(at + direction) % len(choice.values)])
            if choice.field in OF_TOKENS:
                self.board.forget_tokens()
        self.post_message(self.Changed())
        self.repaint()

    def reset(self) -> None:
        """Take back what the cursor stands on."""
        source = self._on_source
        if source is not None:
            for index in range(len(self.board.sources)):
                self.board.replace_section(index, weight=None, repeats=1.0)
        else:
            choice = self._choices()[self.cursor - len(self.board.sources)]
            self.board.set(choice.field, None)
            if choice.field in OF_TOKENS:
                self.board.forget_tokens()
        self.post_message(self.Changed())
        self.repaint()

    def _change_share(self, source: int, direction: int) -> None:
        sections = [state.section for state in self.board.sources]
        if len(sections) == 1:
            self.board.replace_section(source, repeats=_next(REPEATS, sections[0].repeats, direction))
            return
        # Weights are shares against each other: as soon as one has a weight, all have.
        for index, section in enumerate(sections):
            weight = section.weight or 1.0
            self.board.replace_section(index, weight=_next(WEIGHTS, weight, direction) if index == source else weight)

    # Drawing

    def paint(self, width: int, height: int) -> list[Text]:
        look, sources = self.look, self.board.sources
        lines = self._sources(width, look)
        lines.append(Text())
        under = len(lines)
        for index, choice in enumerate(self._choices()):
            lines.append(self._choice_line(choice, index, width, look))
        place = 1 + self.cursor if self._on_source is not None else under + self.cursor - len(sources)
        # The first source is shown with the heads of its columns.
        place = 0 if self.cursor == 0 else place
        room = height - 2
        self._top = max(0, min(self._top, place, len(lines) - room), place - room + 1)
        shown = [cut(line, width, look) for line in lines[self._top : self._top + room]]
        meaning = Text(drawable(self._meaning(), look), style=look.dim)
        return [*shown, *[Text()] * (room - len(shown)), Text(), cut(meaning, width, look)]

    def _sources(self, width: int, look: Look) -> list[Text]:
        """Every source with what it gives to an epoch, and the sum of an epoch."""
        sources = self.board.sources
        trained = self.board.trained_rows()
        shares = epoch_rows(sources, trained)
        exact = self.board.prepared is not None
        name = max(LEAST_NAME, min(MOST_NAME, width - 2 - NUMBERS))
        total = sum(rows for _, rows in shares)
        head = f"  {'learnt from':<{name}}{'rows':>11}{'weight':>8}{'repeats':>9}{'in an epoch':>13}{'share':>8}"
        lines = [Text(head, style=look.dim)]
        for index, (state, (times, rows)) in enumerate(zip(sources, shares, strict=True)):
            in_epoch = _estimate(rows, exact) if rows else "-"
            share = share_text(round(rows / total, 3)) if total else "-"
            lines.append(self._source_line(state, index, (times, in_epoch, share), name, width, look))
        if len(sources) > 1:
            said = f"  {'an epoch':<{name}}{'':>28}{right(_estimate(total, exact), 13, look)}{'100 %':>8}"
            lines.append(Text(said, style=look.strong))
            if repeated := round(total - sum(min(rows, own) for (_, rows), own in zip(shares, trained, strict=True))):
                said = f"  {'of these, repeats':<{name}}{'':>28}{right(_estimate(repeated, exact), 13, look)}"
                lines.append(Text(said, style=look.dim))
        return lines

    def _source_line(
        self, state: SourceState, index: int, epoch: tuple[float, str, str], names: int, width: int, look: Look
    ) -> Text:
        """`epoch`: how often its rows come, how many rows that makes, and their share of the epoch, in words."""
        chosen = index == self.cursor
        times, in_epoch, share = epoch
        name = fit(drawable(printable(state.section.path.name, 80), look), names, look)
        line = Text(no_wrap=True).append("  ").append(name, style=look.strong)
        found = state.found
        rows = _estimate(found.estimated_rows, found.complete) if found else "-"
        weight = f"{state.section.weight:g}" if state.section.weight else "-"
        if chosen:
            weight = f"<{weight}>" if len(self.board.sources) > 1 else weight
        repeats = f"<{times:.3g}>" if chosen and len(self.board.sources) == 1 else f"{times:.3g}"
        line.append(f"{rows:>11}{weight:>8}{repeats:>9}")
        line.append(right(in_epoch, 13, look)).append(right(share, 8, look), style=look.dim)
        return _marked(line, chosen, width, look)

    def _choice_line(self, choice: Choice, index: int, width: int, look: Look) -> Text:
        chosen = index + len(self.board.sources) == self.cursor
        value = self.board.value(choice.field)
        words = choice.show(value)
        changed = choice.field in self.board.settings
        if choice.field == "data.held_out_share":
            if self.board.held_out is not None:
                words, changed = self.board.held_out.path.name, True
            elif value:
                words = f"{words} of the rows"
        marks = ("< ", " >") if chosen else ("", "")
        line = Text(no_wrap=True).append(f"{'*' if changed else ' '} ", style=look.accent)
        line.append(f"{choice.label:<{LABEL}}", style=look.dim).append(marks[0], style=look.accent)
        line.append(drawable(printable(words, 60), look), style=look.strong if changed else "")
        return _marked(line.append(marks[1], style=look.accent), chosen, width, look)

    def _meaning(self) -> str:
        if self._on_source is not None:
            if len(self.board.sources) == 1:
                return "Repeats: how often each of its rows comes in an epoch. a adds a file."
            return "Weights are shares of an epoch: a file short of its share is repeated."
        return self._choices()[self.cursor - len(self.board.sources)].meaning


def epoch_rows(sources: Sequence[SourceState], counts: Sequence[int]) -> list[tuple[float, float]]:
    """Of each source: how often its rows come in an epoch, and how many rows that makes. `counts`: the rows of each
    that are trained on."""
    weights = [state.section.weight for state in sources]
    if len(sources) > 1 and all(weights) and all(counts):
        # An epoch is as long as it takes for every row to come at least once.
        longest = max(count / weight for count, weight in zip(counts, weights, strict=True) if weight)
        times = [longest * weight / count for count, weight in zip(counts, weights, strict=True) if weight]
    else:
        times = [state.section.repeats for state in sources]
    return [(each, each * count) for each, count in zip(times, counts, strict=True)]


def _estimate(count: float, exact: bool) -> str:
    """A count of rows; rounded and marked where it is an estimate."""
    return count_text(round(count)) if exact else f"~{compact_text(count)}"


def _next(ladder: Sequence[float], value: float, direction: int) -> float:
    rungs = [rung for rung in ladder if (rung > value if direction > 0 else rung < value)]
    return (rungs[0] if direction > 0 else rungs[-1]) if rungs else value


def _marked(line: Text, chosen: bool, width: int, look: Look) -> Text:
    if chosen:
        line.truncate(width, pad=True)
        line.stylize_before(look.selected)
    return line
