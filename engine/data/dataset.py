"""What training gets of a person's files: examples read as they are needed, and an account of every row.

Every row of every source is trained on, held out, left out by data.rows, or set aside with a reason, so the counts of
a source add up to its rows. Which rows are held out depends on their content and the seed alone: copies of a row never
stand on both sides, and once ten are held out, rows that are added later do not move the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.contents import Kind, Message
from engine.data.examples import Example, Examples
from engine.data.rows import RejectedRow, RowPlace, Unit

__all__ = ["Dataset", "Example", "Examples", "HeldOutRow", "SourceReport"]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRow:
    """A held-out row that can be answered: what the model is asked and what it should say."""

    row: int
    """Position of the row among all rows of all sources, from 0."""
    prompt_messages: tuple[Message, ...]
    """All that comes before the last answer."""
    prompt_ids: NDArray[np.int32]
    """The prompt as the model gets it, ready to generate from."""
    expected: str
    """The last answer."""

    @property
    def prompt_text(self) -> str:
        """The last thing asked, for people."""
        return self.prompt_messages[-1].content if self.prompt_messages else ""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source, as it was when it was read. `trained`, `held_out`, `left_out` and `set_aside` add up to `rows`."""

    path: str
    is_held_out: bool
    """Given as what is held out."""
    size_bytes: int
    """Of its files as they are stored."""
    sha256: str
    format: str
    unit: Unit
    first_row: int
    """Position of its first row among all rows of all sources, from 0."""
    rows: int
    trained: int
    held_out: int
    left_out: int
    """Not among the rows that data.rows asks for."""
    set_aside: int
    reasons: Mapping[str, int]
    """Rows set aside, by kind of reason."""
    cut: int
    """Rows of those used whose end was cut off."""
    shapes: Mapping[str, int]
    """Used rows of each shape: {"messages": 1200}."""
    train_tokens: int
    repeats: float
    """How often its examples come in an epoch."""
    mapping: Mapping[str, Any]
    """How its rows were understood: what the person said, and what was found out."""
    notes: tuple[str, ...]
    """What is worth knowing of how it was read, such as a guessed encoding."""

    @property
    def used(self) -> int:
        return self.trained + self.held_out


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    train: Examples
    held_out: Examples
    """In an order of chance, so that any number from the front is a fair sample."""
    held_out_rows: list[HeldOutRow]
    """Up to 1,024 held-out rows that have an answer, in an order of chance, so that any number from the front is a
    fair sample."""
    kind: Kind
    """What the rows are; conversations and texts may come together, and are "conversation" then."""
    labels: tuple[str, ...]
    """The classes that occur, in alphabetical order; of feedback "disliked" and "liked"."""
    several_labels: bool
    """Whether a row may have any number of classes."""
    sources: tuple[SourceReport, ...]
    """What is trained on in the order of the spec, then what is held out."""
    repeats: tuple[float, ...]
    """Of each source that is trained on, how often its examples come in an epoch."""
    places_of: Callable[[Iterable[int]], list[RowPlace]]
    """Where in a person's files rows stand that were trained on or held out, by their positions among all rows (as
    `Example.row`), each once. Raises OSError."""
    reject_count: int
    """Rows set aside."""
    write_rejects: Callable[[Path], None]
    """Writes one JSON object for each row set aside: path, unit, line, reason, excerpt. Raises OSError."""
    first_rejects: tuple[RejectedRow, ...]
    """Some of them, the first."""
    cut_rows: int
    """Used rows whose end was cut off at the sequence length."""
    notes: tuple[str, ...]
    """What a person should know, one sentence each."""
    train_tokens: int
    """In one pass over the training examples, repeats not counted."""
    target_tokens: int
    """Of those the ones that carry loss."""
    uncut_lengths: tuple[NDArray[np.int32], NDArray[np.int64]]
    """How many usable rows have so many tokens before any is cut: tokens, rising, and rows. Of a row with several
    sequences its longest counts."""
    made_by: Mapping[str, Any] = field(default_factory=dict)
    """What the preparation was made by, beside the sources: hashes of tokenizer and template, filters, shards."""

    def lineage(self) -> dict[str, Any]:
        """Where every token came from, as JSON: enough to tell whether another run learnt from the same."""
        return {
            **self.made_by,
            "kind": self.kind,
            "labels": list(self.labels),
            "train_examples": len(self.train),
            "held_out_examples": len(self.held_out),
            "train_tokens": self.train_tokens,
            "target_tokens": self.target_tokens,
            "sources": [asdict(source) for source in self.sources],
            "notes": list(self.notes),
        }

    def as_dict(self) -> dict[str, Any]:
        """The account as JSON, without the examples."""
        return {
            **self.lineage(),
            "reject_count": self.reject_count,
            "rejects": [row.as_dict() for row in self.first_rejects],
            "cut_rows": self.cut_rows,
            "uncut_lengths": [list(pair) for pair in zip(*(each.tolist() for each in self.uncut_lengths), strict=True)],
        }
