"""A row's tokens as lines: what is learnt and what is masked stands in words at the left, and token borders show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len
from rich.text import Text

from profiles.problem import printable
from tui.format import count_text, counted
from tui.theme import Look
from tui.widgets.new_run.text import drawable

if TYPE_CHECKING:
    from engine.data.tokens.xray import XRayToken

State = Literal["learnt", "masked", "cut"]
GUTTER = 10
NARROW = 56
"""Below this width only the glyph stands in the gutter."""
SHOWN_PER_TOKEN = 200
"""Characters of one token; a few vocabularies hold runs of hundreds of spaces."""


@dataclass(frozen=True, slots=True)
class Counts:
    learnt: int
    masked: int
    special: int
    ends: int
    cut: int


def counts_of(tokens: Sequence[XRayToken]) -> Counts:
    """How many tokens are learnt, masked and cut (which together are all), and special or an answer's end."""
    states = [state_of(each) for each in tokens]
    return Counts(
        states.count("learnt"),
        states.count("masked"),
        sum(each.special for each in tokens),
        sum(each.stop and not each.cut for each in tokens),
        states.count("cut"),
    )


def state_of(token: XRayToken) -> State:
    return "cut" if token.cut else "learnt" if token.trained else "masked"


def sum_line(tokens: Sequence[XRayToken], look: Look) -> Text:
    """ "● 24 learnt + ○ 52 masked + ✗ 0 cut = 76 tokens", each as its tokens are drawn."""
    found = counts_of(tokens)
    line = Text(no_wrap=True)
    for state, count in (("learnt", found.learnt), ("masked", found.masked), ("cut", found.cut)):
        glyph, style = _sign(state, look)
        line.append(" + " if line else "", style=look.dim)
        line.append(f"{glyph} {count_text(count)} {state}", style=style if count or state != "cut" else look.dim)
    return line.append(f" = {counted(len(tokens), 'token')}", style=look.strong)


def marks_line(tokens: Sequence[XRayToken], look: Look) -> Text:
    """The special tokens and the ends of answers among them; red where a learnt answer has no end."""
    found = counts_of(tokens)
    line = Text("among them  ", style="", no_wrap=True)
    line.stylize(look.dim)
    line.append(f"{look.glyph('◆', '#')} {count_text(found.special)} special", style=_special(look)).append("  ")
    words = counted(found.ends, "end of an answer", "ends of answers")
    return line.append(f"{_end_sign(look)} {words}", style=look.good if found.ends or not found.learnt else look.bad)


def xray_lines(tokens: Sequence[XRayToken], width: int, look: Look, borders: bool = True) -> list[Text]:
    """The tokens in lines of at most `width` columns; a stretch of one state begins a line.

    `borders` shows where tokens end: by alternating backgrounds, or by bars where there are no colours.
    """
    gutter = GUTTER if width >= NARROW else 2
    lines: list[Text] = []
    odd = False
    for state, stretch in groupby(tokens, state_of):
        glyph, style = _sign(state, look)
        first = Text(no_wrap=True).append(f"{glyph} {state if gutter > 2 else ''}"[:gutter].ljust(gutter), style=style)
        line = first
        for token in stretch:
            odd = not odd
            for piece, breaks in _pieces(token.text, look):
                shown = _drawn(token, piece, style, look, borders, odd)
                for part in _in_room(shown, width - gutter):
                    if line.cell_len + part.cell_len > width:
                        lines.append(line)
                        line = Text(" " * gutter, no_wrap=True)
                    line.append_text(part)
                if breaks:
                    lines.append(line)
                    line = Text(" " * gutter, no_wrap=True)
            if token.stop and not token.cut:
                line.append(_end_sign(look), style=look.good)
        if line.plain.strip() or line is first:
            lines.append(line)
    return lines


def _sign(state: str, look: Look) -> tuple[str, str]:
    return {
        "learnt": (look.glyph("●", "*"), look.accent),
        "masked": (look.glyph("○", "o"), look.dim),
        "cut": (look.glyph("✗", "x"), look.bad),
    }[state]


def _special(look: Look) -> str:
    return look.components["loss"] or "underline"


def _end_sign(look: Look) -> str:
    return look.glyph("■", "$")


def _drawn(token: XRayToken, piece: str, style: str, look: Look, borders: bool, odd: bool) -> Text:
    own = "underline" if token.special and not look.colored else ""
    if token.special and look.colored and not token.cut:
        style = f"bold {_special(look)}" if token.trained else _special(look)
    text = Text(piece, style=f"{style} {own}".strip(), no_wrap=True)
    if borders and look.colored and odd:
        text.stylize(look.selected)
    elif borders and not look.colored:
        text.append("|", style="dim")
    return text


def _pieces(text: str, look: Look) -> list[tuple[str, bool]]:
    """A token's text in drawable pieces, with a sign where a line ends and whether one ends there."""
    shown = text[:SHOWN_PER_TOKEN].replace("\r\n", "\n")
    parts = shown.split("\n")
    sign, tab = look.glyph("↵", "\\n"), look.glyph("→", "\\t")
    pieces = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        words = drawable(printable(part.replace("\t", tab), 4 * SHOWN_PER_TOKEN), look)
        if words or not last:
            pieces.append((words if last else words + sign, not last))
    return pieces or [("", False)]


def _in_room(text: Text, room: int) -> list[Text]:
    """A token that is wider than a line, in several pieces."""
    if cell_len(text.plain) <= room:
        return [text]
    return list(text.divide(range(room // 2, len(text), max(1, room // 2))))
