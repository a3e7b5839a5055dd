"""A row of a person's file as it was read, or the reason why it cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.data.quoting import without_quotes
from profiles.problem import Problem, printable

Unit = Literal["line", "row"]
"""What a row is counted by: the line of a text file at which it begins, or a record of a table or a list."""

_REASONS_TOLD = 5
_BY_TEMPLATE = "the chat template"
"""In the reason of a row that another template might write."""


@dataclass(frozen=True, slots=True)
class Row:
    line: int
    """Where it begins, from 1, in the unit of its file."""
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where a row stands in a person's files; `line` counts from 1 in the `unit` of its file."""

    path: str
    unit: Unit
    line: int


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is not learnt from, and why. `reason` completes the sentence "line 7 ..."."""

    path: str
    line: int
    reason: str
    excerpt: str
    unit: Unit = "line"

    def __str__(self) -> str:
        return f"{self.unit} {self.line:,} {self.reason}"

    def as_dict(self) -> dict[str, str | int]:
        return {
            "path": self.path,
            "unit": self.unit,
            "line": self.line,
            "reason": self.reason,
            "excerpt": self.excerpt,
        }


def refusal(
    rejected: Sequence[RejectedRow], count: int, rows: int, allowed_share: float, *, quoting: bool = False
) -> Problem | None:
    """The Problem for a source of `rows` rows of which `count` were rejected, when that is more than allowed.

    `rejected` holds the first of them in order; five different reasons are told, each with its first line, and with
    words of that row only where `quoting`: a person looks at their own data, and this goes into no log.
    """
    if not count or (count <= allowed_share * rows and count < rows):
        return None
    first_of_reason: dict[str, RejectedRow] = {}
    for row in rejected:
        first_of_reason.setdefault(row.reason if quoting else without_quotes(row.reason), row)
    told = "; ".join(str(row) for row in list(first_of_reason.values())[:_REASONS_TOLD])
    told = told if quoting else without_quotes(told)
    if count == rows:
        share = f"none of its {rows:,} rows can be used" if rows > 1 else "its only row cannot be used"
    else:
        share = (
            f"{count:,} of {rows:,} rows ({count / rows:.1%}) cannot be used, more than the {allowed_share:.1%} allowed"
        )
    fix = "Correct those rows"
    if _BY_TEMPLATE in told:
        fix += ", or choose another data.chat_template"
    if count < rows:
        fix += ", or raise data.max_rejected_share"
    return Problem(shown(Path(rejected[0].path)), f"{share}: {told}", f"{fix}.")


def places_text(places: Iterable[RowPlace], most: int) -> list[str]:
    """Rows in words, a text for each file: "lines 3, 17 and 40 of chats.jsonl"; `most` of them are named."""
    of_file: dict[tuple[str, Unit], list[int]] = {}
    for place in places:
        of_file.setdefault((place.path, place.unit), []).append(place.line)
    texts = []
    for (path, unit), lines in of_file.items():
        named = [f"{line:,}" for line in lines[:most]]
        left, most = len(lines) - len(named), max(0, most - len(named))
        if left and not named:
            numbers = f"{left:,} {unit}s"
        elif left:
            numbers = f"{unit}s {', '.join(named)} and {left:,} more"
        elif len(named) > 1:
            numbers = f"{unit}s {', '.join(named[:-1])} and {named[-1]}"
        else:
            numbers = f"{unit} {named[0]}"
        texts.append(f"{numbers} of {shown(Path(path))}")
    return texts


def in_batches(
    rows: Iterable[Row | RejectedRow], most_rows: int, most_characters: int
) -> Iterator[list[Row | RejectedRow]]:
    """The rows in runs that can be worked on at once: each ends at `most_rows`, or past `most_characters` of text."""
    batch: list[Row | RejectedRow] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += len(row.excerpt) if isinstance(row, RejectedRow) else _characters(row.value)
        if len(batch) >= most_rows or characters >= most_characters:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 8


def shown(path: Path) -> str:
    """`path` as a message shows it: safe on a terminal, quoted when it holds control characters."""
    text = str(path)
    safe = printable(text, limit=300)
    return safe if safe == text else f'"{safe}"'
