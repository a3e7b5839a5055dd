"""The X-ray of a row as lines of text: its tokens in runs, each run with a glyph and a word for what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from engine.data.tokens.xray import XRay, XRayToken
from profiles.problem import printable
from tui.format import count_text, counted

# A run longer than this is shown by its beginning and its end; --json has every token.
_LINES_OF_RUN = 12
_LAST_LINES = 3
_STATES = {"masked": "○", "learnt": "●", "end": "■", "cut": "✗"}
_INDENT = 11
_NARROWEST = 20
_LONGEST_PIECE = 200


@dataclass(frozen=True, slots=True)
class _Marks:
    border: str
    """Stands between two tokens."""
    white_space: Mapping[int, str]
    """What is drawn for white space that a line of text cannot hold."""


_MARKS = _Marks("│", str.maketrans({"\r": "␍", "\n": "⏎", "\t": "⇥"}))
_ASCII_MARKS = _Marks("|", str.maketrans({"\r": "\\r", "\n": "\\n", "\t": "\\t"}))


def xray_lines(xray: XRay, width: int, ascii: bool) -> Iterator[str]:
    """Lines of at most `width` characters (of 1 cell each): counts, notes, then the tokens."""
    name = f"{xray.name}: " if xray.name else ""
    counts = xray.counts
    told = f"{counted(counts['tokens'], 'token')}: {count_text(counts['learnt'])} learnt, "
    told += f"{count_text(counts['masked'])} masked, {count_text(counts['cut'])} cut"
    yield f"{name}{told} ({counted(counts['answers'], 'answer')}, {count_text(counts['special'])} special)"
    yield from (f"  note     {note}" for note in xray.notes)
    marks = _ASCII_MARKS if ascii else _MARKS
    for state, run in groupby(xray.tokens, key=_state):
        label = f"  {_STATES[state]} {state:<{_INDENT - 4}}"
        for line in _run_lines(list(run), max(_NARROWEST, width - _INDENT), marks):
            yield label + line
            label = " " * _INDENT


def legend(ascii: bool) -> str:
    """What the words say."""
    border = (_ASCII_MARKS if ascii else _MARKS).border
    words = "● learnt: a target  ○ masked: read only  ■ end: the end token, learnt  ✗ cut: left out"
    return f"{words}  {border} between tokens"


def _state(token: XRayToken) -> str:
    if token.cut:
        return "cut"
    if token.trained:
        return "end" if token.stop else "learnt"
    return "masked"


def _run_lines(tokens: Sequence[XRayToken], width: int, marks: _Marks) -> list[str]:
    lines = list(_wrapped(tokens, width, marks))
    if len(lines) <= _LINES_OF_RUN:
        return [line for line, _ in lines]
    first, last = lines[: _LINES_OF_RUN - _LAST_LINES - 1], lines[-_LAST_LINES:]
    between = len(tokens) - sum(count for _, count in (*first, *last))
    return [*(line for line, _ in first), f"… {counted(between, 'token')} more …", *(line for line, _ in last)]


def _wrapped(tokens: Sequence[XRayToken], width: int, marks: _Marks) -> Iterator[tuple[str, int]]:
    """(line, tokens in it); a line ends where the text has a line end, or where it is full."""
    line, count = "", 0
    for token in tokens:
        piece = printable(token.text.translate(marks.white_space), _LONGEST_PIECE)
        if count and len(line) + 1 + len(piece) > width:
            yield line, count
            line, count = "", 0
        line += f"{marks.border}{piece}" if count else piece
        count += 1
        if token.text.endswith("\n"):
            yield line, count
            line, count = "", 0
    if count:
        yield line, count
