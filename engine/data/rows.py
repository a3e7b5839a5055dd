"""A row of a person's file as it was read, or the reason why it cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from profiles.problem import Problem, printable

Unit = Literal["line", "row"]
"""What a row is counted by: the line of a text file at which it begins, or a record of a table or a list."""

_REASONS_TOLD = 5


@dataclass(frozen=True, slots=True)
class Row:
    line: int
    """Where it begins, from 1, in the unit of its file."""
    value: dict[str, Any]


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


def refusal(rejected: Sequence[RejectedRow], count: int, rows: int, allowed_share: float) -> Problem | None:
    """The Problem for a source of `rows` rows of which `count` were rejected, when that is more than allowed.

    `rejected` holds the first of them in order; five different reasons are told, each with its first line.
    """
    if not count or (count <= allowed_share * rows and count < rows):
        return None
    first_of_reason: dict[str, RejectedRow] = {}
    for row in rejected:
        first_of_reason.setdefault(row.reason, row)
    told = "; ".join(str(row) for row in list(first_of_reason.values())[:_REASONS_TOLD])
    if count == rows:
        share = f"none of its {rows:,} rows can be used" if rows > 1 else "its only row cannot be used"
    else:
        share = (
            f"{count:,} of {rows:,} rows ({count / rows:.1%}) cannot be used, more than the {allowed_share:.1%} allowed"
        )
    fix = "Correct those rows" if count == rows else "Correct those rows, or raise data.max_rejected_share"
    return Problem(shown(Path(rejected[0].path)), f"{share}: {told}", f"{fix}.")


def shown(path: Path) -> str:
    """`path` as a message shows it: safe on a terminal, quoted when it holds control characters."""
    text = str(path)
    safe = printable(text, limit=300)
    return safe if safe == text else f'"{safe}"'
