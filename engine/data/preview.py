"""A look at a data file without the model's libraries: what it holds, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine.data.contents import Conversation, PlainText, Recognised, Unusable
from engine.data.read import read_rows
from engine.data.rows import RejectedRow, refusal
from engine.data.shapes import recognise
from profiles.problem import Problem, printable

PREVIEW_BYTES = 16 * 2**20
_SAMPLES = 5
_REJECTS_KEPT = 100
_LONG_ROW_CHARACTERS = 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """One row as it will be understood."""

    line: int
    content: Conversation | PlainText


@dataclass(frozen=True, slots=True)
class Lengths:
    """Characters per usable row, over all its texts; all zero when there is none."""

    mean: float = 0.0
    median: int = 0
    p90: int = 0
    p99: int = 0
    maximum: int = 0


@dataclass(frozen=True, slots=True)
class DataPreview:
    """What the first `read_bytes` of a file hold; all of it when `complete`."""

    path: Path
    bytes: int
    read_bytes: int
    rows: int
    """Rows read, usable or not."""
    shape: str
    """The fields most rows are understood by, such as "messages" or "prompt, completion"; "" when none is."""
    shapes: Mapping[str, int]
    """Rows of each shape."""
    rejected: tuple[RejectedRow, ...]
    """The first rows that cannot be used."""
    reject_count: int
    samples: tuple[Sample, ...]
    characters: Lengths
    complete: bool
    notes: tuple[str, ...]

    @property
    def usable_rows(self) -> int:
        return self.rows - self.reject_count

    @property
    def estimated_rows(self) -> int:
        """Rows of the whole file: exact when `complete`, else from the mean size of those read."""
        return self.rows if self.complete else round(self.rows * self.bytes / self.read_bytes)

    def refusal(self, allowed_share: float) -> Problem | None:
        """The Problem a run would stop with when it may reject this share of the rows."""
        return refusal(self.rejected, self.reject_count, self.rows, allowed_share)

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "bytes": self.bytes,
            "read_bytes": self.read_bytes,
            "complete": self.complete,
            "rows": self.rows,
            "estimated_rows": self.estimated_rows,
            "shape": self.shape,
            "shapes": dict(self.shapes),
            "rejected_rows": self.reject_count,
            "rejected": [row.as_dict() for row in self.rejected],
            "samples": [_sample_dict(sample) for sample in self.samples],
            "characters": {name: getattr(self.characters, name) for name in Lengths.__slots__},
            "notes": list(self.notes),
        }


def preview(path: Path, limit_bytes: int = PREVIEW_BYTES) -> DataPreview:
    """Reads `path` up to the row that passes `limit_bytes`. Raises Problem when it is no JSONL."""
    found = _Found()
    with read_rows(path) as reader:
        for row in reader:
            found.rows += 1
            if isinstance(row, RejectedRow):
                found.reject(row)
            else:
                try:
                    found.take(row.line, recognise(row.value))
                except Unusable as reason:
                    found.reject(reader.rejection(row, str(reason)))
            if reader.position_bytes >= limit_bytes:
                break
        complete = reader.position_bytes == reader.size_bytes
        notes = tuple(found.notes(reader.has_byte_order_mark, reader.blank_lines))
        return DataPreview(
            path=path,
            bytes=reader.size_bytes,
            read_bytes=reader.position_bytes,
            rows=found.rows,
            shape=max(found.shapes, key=found.shapes.__getitem__, default=""),
            shapes=dict(found.shapes),
            rejected=tuple(found.rejected),
            reject_count=found.reject_count,
            samples=tuple(found.samples),
            characters=_lengths(found.lengths),
            complete=complete,
            notes=notes,
        )


@dataclass(slots=True)
class _Found:
    rows: int = 0
    reject_count: int = 0
    rejected: list[RejectedRow] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    unused: set[str] = field(default_factory=set)
    digests: set[int] = field(default_factory=set)
    longest: tuple[int, int] = (0, 0)
    """Characters of the longest row, and its line with a minus sign, so that the first of several is kept."""
    oddities: Counter[str] = field(default_factory=Counter)

    def reject(self, row: RejectedRow) -> None:
        self.reject_count += 1
        if len(self.rejected) < _REJECTS_KEPT:
            self.rejected.append(row)

    def take(self, line: int, recognised: Recognised) -> None:
        content = recognised.content
        length = sum(map(len, content.texts()))
        self.lengths.append(length)
        self.longest = max(self.longest, (length, -line))
        self.shapes[recognised.shape] += 1
        self.unused.update(recognised.unused)
        self.digests.add(hash(content))
        if len(self.samples) < _SAMPLES:
            self.samples.append(Sample(line, content))
        if isinstance(content, Conversation):
            self.oddities.update(_oddities(content))

    def notes(self, has_byte_order_mark: bool, blank_lines: int) -> Iterator[str]:
        if has_byte_order_mark:
            yield "the file begins with a UTF-8 byte-order mark, which is passed over"
        if blank_lines:
            yield f"blank lines passed over: {blank_lines:,}"
        if len(self.shapes) > 1:
            counts = "; ".join(f"{shape} {count:,}" for shape, count in self.shapes.most_common())
            yield f"rows of different shapes: {counts}"
        if copies := len(self.lengths) - len(self.digests):
            yield f"rows that are exact copies of another: {copies:,}"
        length, negative_line = self.longest
        if length > _LONG_ROW_CHARACTERS:
            yield f"line {-negative_line:,} has {length:,} characters and will be cut or split"
        for oddity, count in sorted(self.oddities.items()):
            yield f"{oddity}: {count:,} rows"
        if self.unused:
            names = ", ".join(printable(name, 40) for name in sorted(self.unused))
            yield f"fields that change nothing: {names}"


def _oddities(conversation: Conversation) -> Iterator[str]:
    """What is allowed but seldom meant, and what many chat templates reject."""
    roles = [message.role for message in conversation.messages]
    if "system" in roles[1:]:
        yield "a system message that is not the first"
    if any(one == other and one in ("user", "assistant") for one, other in pairwise(roles)):
        yield "two turns in a row by the same side"
    if roles[-1] != "assistant":
        yield "nothing is learnt from what follows the last answer"


def _lengths(lengths: list[int]) -> Lengths:
    if not lengths:
        return Lengths()
    ordered, last = sorted(lengths), len(lengths) - 1
    median, p90, p99 = (ordered[round(share * last)] for share in (0.5, 0.9, 0.99))
    return Lengths(sum(ordered) / len(ordered), median, p90, p99, ordered[-1])


def _sample_dict(sample: Sample) -> dict[str, Any]:
    content = sample.content
    if isinstance(content, PlainText):
        return {"line": sample.line, "text": content.text}
    return {"line": sample.line, "messages": [message.as_dict() for message in content.messages]}
