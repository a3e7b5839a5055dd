"""How the New run and Chat screens put words on the page: facts with aligned labels, problems, sentences."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from rich.text import Text

from profiles.problem import Problem, printable
from tui.theme import Look

LEAST_VALUE_WIDTH = 12
"""Columns beside a label in which a value can be read."""

# Our own sentences (reasons, problems) use these signs; an ASCII terminal gets what stands beside them.
_WRITTEN_OUT = {
    "·": "-", "…": "...", "›": ">", "‹": "<", "−": "-", "–": "-", "—": "-", "×": "x", "≈": "~", "°": " deg ",
    "“": '"', "”": '"', "’": "'", "→": "->", "✓": "+", "✗": "x", "≤": "<=", "≥": ">=",
}  # fmt: skip


def drawable(text: str, look: Look) -> str:
    """`text` as this terminal can draw it: unchanged, or in ASCII with "?" for letters that have none."""
    if not look.ascii or text.isascii():
        return text
    return "".join(_WRITTEN_OUT.get(letter, letter) for letter in text).encode("ascii", "replace").decode()


def cut(text: str, width: int, look: Look) -> str:
    """`text` on one line of at most `width` characters."""
    text = drawable(" ".join(text.split()), look)
    return text if len(text) <= width else text[: max(0, width - len(look.ellipsis))] + look.ellipsis


def facts(rows: Sequence[tuple[str, str | Text]], look: Look, label_width: int, width: int) -> Text:
    """Labels in one dim column, and what they name beside them (below them, where that would be a mere strip), wrapped
    to `width` columns in all."""
    lines: list[str | Text] = []
    room = width - label_width
    for label, value in rows:
        if room < LEAST_VALUE_WIDTH:
            lines.append(Text(label, style=look.dim))
            lines += wrapped(value, max(8, width), look)
            continue
        for number, line in enumerate(wrapped(value, room, look)):
            lines.append(Text.assemble((f"{'' if number else label:<{label_width}}", look.dim), line))
    return Text("\n").join(line if isinstance(line, Text) else Text(line) for line in lines)


def wrapped(value: str | Text, width: int, look: Look) -> list[str | Text]:
    """`value` in lines of at most `width` columns; line breaks in it are kept."""
    if isinstance(value, Text):
        return [value]
    lines: list[str | Text] = []
    for paragraph in drawable(value, look).split("\n"):
        lines += textwrap.wrap(paragraph, width, break_on_hyphens=False) or [""]
    return lines


def path_lines(path: str, width: int) -> list[str]:
    """A path in lines of at most `width` columns, broken after slashes where it can be."""
    lines = [""]
    for part in re.findall(r"[^/]*/|[^/]+$", path):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return [piece for line in lines for piece in textwrap.wrap(line, width, drop_whitespace=False) or [""]]


def problem_text(problem: Problem, look: Look) -> Text:
    """A problem as people read it: what, where, and how to fix it."""
    return Text.assemble(
        (f"{look.glyph('✗', 'x')} {drawable(problem.what, look)}", look.bad),
        "\n",
        (drawable(printable(problem.where, 300), look), look.dim),
        "\n",
        ("fix: ", look.strong),
        drawable(problem.fix, look),
    )


def problem_line(problem: Problem, look: Look) -> Text:
    """The same in one paragraph, for a place with little room."""
    what = drawable(f"{look.glyph('✗', 'x')} {problem.where} {problem.what}. ", look)
    return Text.assemble((what, look.bad), drawable(problem.fix, look))
