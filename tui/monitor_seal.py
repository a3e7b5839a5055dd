"""What the monitor shows of a run's seal: one line, and a page with all that it rests on."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from tui import seal_evidence as evidence
from tui.seal_words import SealWords, glyph, none_tried_words, seal_words, style, way_out_words
from tui.theme import Look
from tui.widgets.new_run.text import drawable
from tui.widgets.painted import cut, fit

if TYPE_CHECKING:
    from engine.run.telemetry.events import RunState

LABEL_WIDTH = 16
TWO_COLUMNS = 110
"""From this width on, the answers of probes stand in two columns."""


def seal_line(state: RunState, width: int, look: Look) -> Text:
    """The seal in one line of at most `width` cells: the whole of it, or the short form where that has no room."""
    said = seal_words(state)
    if said is None:
        ended = state.outcome is not None
        told = "no trainer was started" if ended else "the seal is told of once the trainer begins"
        if state.tests_seal:
            told = "testing the seal: each way out is tried before the trainer starts"
        return cut(Text(told, style=look.dim), width, look)
    sign = f"{glyph(said.name, look)} "
    told = said.text if cell_len(sign + said.text) <= width else said.short
    return cut(_line_of(said, told, sign, look), width, look)


def _line_of(said: SealWords, told: str, sign: str, look: Look) -> Text:
    line = Text(no_wrap=True).append(sign + said.word, style=style(said.name, look))
    line.append(drawable(told.removeprefix(said.word), look), style=look.dim if said.name == "sealed" else "")
    if said.attempts and (at := line.plain.find(words := f"{said.attempts:,} attempt")) >= 0:
        line.stylize(look.warn, at, at + len(words) + (said.attempts > 1))
    return line


@dataclass(frozen=True, slots=True)
class Page:
    """Lines to scroll through, with the rows at which its sections begin."""

    lines: Sequence[Text]
    sections: Sequence[int]


def seal_page(state: RunState, width: int, look: Look) -> Page:
    """Everything that is known of the seal of a run's last attempt."""
    lines: list[Text] = []
    sections: list[int] = []

    def begin(title: str) -> None:
        if lines:
            lines.append(Text())
        sections.append(len(lines))
        rule = look.glyph("─", "-")
        head = Text(no_wrap=True).append(f"{rule * 2} ", style=look.faint).append(title, style=look.accent)
        head.append(" " + rule * max(0, width - len(title) - 4), style=look.faint)
        lines.append(cut(head, width, look))

    begin("seal")
    lines += _summary(state, width, look)
    if not state.seal:
        return Page(lines, sections)
    begin("layers")
    for layer in state.seal.get("layers") or ():
        lines += _rows(evidence.layer_rows(layer), width, look, "" if layer.get("held") else look.warn)
    if not state.seal.get("layers"):
        lines.append(Text("none was asked for", style=look.dim))
    begin("probes, tried from within before the trainer began")
    lines += _rows(evidence.trial_rows(state.seal), width, look)
    if tried := evidence.answers(state.seal):
        lines += _rows([("answers", evidence.ANSWER_WORDS)], width, look)
        lines += _open_ways([(name, answer) for name, answer, refused in tried if not refused], width, look)
        lines += _answers([(name, answer) for name, answer, refused in tried if refused], width, look)
    moments = f": start {look.glyph('→', '->')} last check" if evidence.last_check(state) else ""
    begin(f"read from outside, in the kernel's files{moments}")
    lines += _evidence(state, width, look)
    begin("ways out that were tried")
    ways = [("", way_out_words(way)) for way in state.ways_out]
    lines += _wrapped(ways, width, look) or [Text(none_tried_words(state), style=look.dim)]
    return Page(lines, sections)


def _summary(state: RunState, width: int, look: Look) -> list[Text]:
    said = seal_words(state)
    if said is None:
        return [seal_line(state, width, look)]
    first = f"{glyph(said.name, look)} {said.word}"
    told = drawable(first + said.text.removeprefix(said.word), look)
    lines = [Text(piece, no_wrap=True) for piece in textwrap.wrap(told, width, subsequent_indent="  ")]
    lines[0].stylize(style(said.name, look), 0, len(first))
    if not state.seal:
        return lines
    return lines + _rows(evidence.summary_rows(state), width, look)


def _rows(rows: Sequence[evidence.Row], width: int, look: Look, value_style: str = "") -> list[Text]:
    """A dim label and its value, wrapped beside it."""
    room = max(8, width - LABEL_WIDTH)
    lines = []
    for label, value in rows:
        pieces = textwrap.wrap(drawable(value, look), room, break_on_hyphens=False) or [""]
        for number, piece in enumerate(pieces):
            start = fit("" if number else drawable(label, look), LABEL_WIDTH, look)
            lines.append(Text(no_wrap=True).append(start, style=look.dim).append(piece, style=value_style))
    return lines


def _wrapped(rows: Sequence[evidence.Row], width: int, look: Look) -> list[Text]:
    bullet = look.glyph("· ", "- ")
    pieces = [textwrap.wrap(bullet + drawable(value, look), width, subsequent_indent="  ") for _, value in rows]
    return [Text(line, style=look.warn, no_wrap=True) for wrapped in pieces for line in wrapped]


def _open_ways(ways: Sequence[evidence.Row], width: int, look: Look) -> list[Text]:
    """Ways that are open are told whole: which file, which folder."""
    start = look.glyph("✗ ", "x ") + "open  "
    said = (drawable(f"{start}{name}: {answer}", look) for name, answer in ways)
    pieces = [textwrap.wrap(each, width, subsequent_indent=" " * len(start), break_on_hyphens=False) for each in said]
    return [Text(line, style=look.bad, no_wrap=True) for wrapped in pieces for line in wrapped]


def _answers(answers: Sequence[evidence.Row], width: int, look: Look) -> list[Text]:
    """The ways that are shut, each with the kernel's word for it."""
    columns = 2 if width >= TWO_COLUMNS else 1
    room = width // columns - 2
    name_width = min(max((cell_len(name) for name, _ in answers), default=0), room * 2 // 3)
    cells = []
    for name, answer in answers:
        cell = Text(no_wrap=True).append(look.glyph("✓ ", "+ "), style=look.good)
        cell.append(fit(drawable(name, look), name_width, look))
        cell.append(f"  {drawable(answer, look)}", style=look.dim)
        cells.append(cut(cell, room, look))
    height = -(-len(cells) // columns)
    lines = []
    for row in range(height):
        line = cells[row].copy()
        if columns == 2 and row + height < len(cells):
            line.append(" " * (width // 2 - line.cell_len)).append_text(cells[row + height])
        lines.append(line)
    return lines


def _evidence(state: RunState, width: int, look: Look) -> list[Text]:
    first = evidence.evidence_rows(state.seal.get("evidence") or {})
    last = dict(evidence.evidence_rows(evidence.last_check(state).get("evidence") or {}))
    if not first:
        return [Text("nothing was read", style=look.dim)]
    lines = []
    for label, value in first:
        later = last.get(label, value)
        told = value if later == value else f"{value} {look.glyph('→', '->')} {later}"
        lines += _rows([(label, told)], width, look)
    return lines
