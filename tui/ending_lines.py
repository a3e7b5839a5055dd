"""Why a run ended, or is held up, and what to do about it: drawn in as few lines as there are."""

from __future__ import annotations

import textwrap

from rich.text import Text

from tui.theme import Look

_REMEDY = "Remedy: "


def ending_lines(
    why: str, remedy: str, width: int, most: int, look: Look, style: str, *, advised: bool = True
) -> list[Text]:
    """`why` in `style`, then the remedy, in at most `most` lines (two at least where there are both). Where they have
    not room enough each gives way by its end, the remedy last: it is what a person can use. Where nothing is wrong it
    is not `advised` as one."""
    label = _REMEDY if advised else ""
    told, advice = _wrapped(why, width), _wrapped(label + remedy, width) if remedy else []
    if len(told) + len(advice) > most:
        advice = _shortened(advice, max(1, most - 1), width, look)
        told = _shortened(told, max(1, most - len(advice)), width, look)
    lines = [Text(line, style=style, no_wrap=True) for line in told]
    for index, line in enumerate(advice):
        text = Text(line, no_wrap=True)
        if not index:
            text.stylize(look.dim, 0, len(label))
        lines.append(text)
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), max(8, width))


def _shortened(lines: list[str], most: int, width: int, look: Look) -> list[str]:
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    return [*lines[: most - 1], last[: max(0, width - 1)].rstrip() + look.ellipsis]
