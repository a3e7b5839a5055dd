"""What a look at data counts as rows go by: lengths, shapes, columns, samples and oddities, in bounded memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal

from engine.data.contents import (
    Content,
    Conversation,
    Feedback,
    Labelled,
    Message,
    PlainText,
    Preference,
    Recognised,
    Similar,
)
from engine.data.rows import RejectedRow, Unit
from profiles.problem import printable

_SAMPLES, _SAMPLE_CHARACTERS = 200, 2**20
_REJECTS_KEPT = 100
_LONG_ROW_CHARACTERS = 2**20
_EXAMPLE_CHARACTERS = 60
# Rows whose columns are counted one by one; their share tells enough of the rest.
_COLUMN_ROWS = 10_000
_MOST_COLUMNS = 200
_LABELS_TOLD = 8

ColumnKind = Literal["text", "number", "flag", "list", "object", "mixed", "empty"]
_KINDS: dict[type, ColumnKind] = {
    str: "text",
    bool: "flag",
    int: "number",
    float: "number",
    list: "list",
    dict: "object",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One row as it will be understood."""

    line: int
    content: Content


@dataclass(frozen=True, slots=True)
class Column:
    """`filled_share` is of the rows that were looked at: neither absent, null nor empty text."""

    name: str
    example: str
    """The first value, as one printable line."""
    filled_share: float
    kind: ColumnKind

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "example": self.example, "filled_share": self.filled_share, "kind": self.kind}


@dataclass(frozen=True, slots=True)
class Lengths:
    """Characters; all zero when there is nothing."""

    mean: float = 0.0
    median: int = 0
    p90: int = 0
    p99: int = 0
    maximum: int = 0

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Lengths:
        if not lengths:
            return cls()
        ordered, last = sorted(lengths), len(lengths) - 1
        median, p90, p99 = (ordered[round(share * last)] for share in (0.5, 0.9, 0.99))
        return cls(sum(ordered) / len(ordered), median, p90, p99, ordered[-1])

    def as_dict(self) -> dict[str, float]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(slots=True)
class _ColumnCount:
    example: str = ""
    filled: int = 0
    kinds: set[ColumnKind] = field(default_factory=set)


@dataclass(slots=True)
class Counts:
    rows: int = 0
    reject_count: int = 0
    rejected: list[RejectedRow] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """Characters of each usable row."""
    sequence_lengths: list[int] = field(default_factory=list)
    """Characters of each sequence that a usable row makes."""
    _sample_characters: int = 0
    _unused: set[str] = field(default_factory=set)
    _digests: set[int] = field(default_factory=set)
    _longest: tuple[int, int] = (0, 0)
    """Characters of the longest row, and its line with a minus sign, so that the first of several is kept."""
    _oddities: Counter[str] = field(default_factory=Counter)
    _labels: Counter[str] = field(default_factory=Counter)
    _likes: Counter[bool] = field(default_factory=Counter)
    _columns: dict[str, _ColumnCount] = field(default_factory=dict)
    _column_rows: int = 0

    def reject(self, row: RejectedRow) -> None:
        self.rows += 1
        self.reject_count += 1
        if len(self.rejected) < _REJECTS_KEPT:
            self.rejected.append(row)

    def look_at(self, row: Mapping[str, Any]) -> None:
        """A row's columns, whether it can be used or not."""
        if self._column_rows == _COLUMN_ROWS:
            return
        self._column_rows += 1
        for name, value in row.items():
            count = self._columns.get(name)
            if count is None:
                if len(self._columns) == _MOST_COLUMNS:
                    continue
                count = self._columns[name] = _ColumnCount()
            if value is None or value == "":
                continue
            count.filled += 1
            count.kinds.add(_KINDS.get(type(value), "mixed"))
            if count.filled == 1:
                count.example = _example(value)

    def take(self, line: int, recognised: Recognised) -> None:
        self.rows += 1
        content = recognised.content
        length = sum(map(len, content.texts()))
        self.lengths.append(length)
        self.sequence_lengths += [sum(map(len, texts)) for texts in sequences(content)]
        self._longest = max(self._longest, (length, -line))
        self.shapes[recognised.shape] += 1
        self._unused.update(recognised.unused)
        self._digests.add(hash(content))
        if len(self.samples) < _SAMPLES and (not self.samples or self._sample_characters + length < _SAMPLE_CHARACTERS):
            self._sample_characters += length
            self.samples.append(Sample(line, content))
        if isinstance(content, Labelled):
            self._labels.update(content.labels or ("(none)",))
        elif isinstance(content, Feedback):
            self._likes[content.liked] += 1
        elif isinstance(content, Conversation):
            self._oddities.update(_oddities(content))

    def columns(self) -> tuple[Column, ...]:
        return tuple(
            Column(
                name,
                count.example,
                count.filled / self._column_rows,
                "empty" if not count.kinds else next(iter(count.kinds)) if len(count.kinds) == 1 else "mixed",
            )
            for name, count in self._columns.items()
        )

    def notes(self, unit: Unit) -> Iterator[str]:
        if len(self.shapes) > 1:
            counts = "; ".join(f"{shape} {count:,}" for shape, count in self.shapes.most_common())
            yield f"rows of different shapes: {counts}"
        if copies := len(self.lengths) - len(self._digests):
            yield f"rows that are exact copies of another: {copies:,}"
        length, negative_line = self._longest
        if length > _LONG_ROW_CHARACTERS:
            yield f"{unit} {-negative_line:,} has {length:,} characters and will be cut or split"
        for oddity, count in sorted(self._oddities.items()):
            yield f"{oddity}: {count:,} rows"
        if self._labels:
            told = "; ".join(f"{printable(name, 40)} {n:,}" for name, n in self._labels.most_common(_LABELS_TOLD))
            more = len(self._labels) - _LABELS_TOLD
            yield f"classes: {told}" + (f"; and {more:,} more" if more > 0 else "")
        if self._likes:
            yield f"thumbs up {self._likes[True]:,}, down {self._likes[False]:,}"
        if self._unused:
            names = ", ".join(printable(name, 40) for name in sorted(self._unused))
            yield f"fields that change nothing: {names}"


def sequences(content: Content) -> Iterator[Iterator[str]]:
    """The texts of each sequence that goes through the model for a content."""
    if isinstance(content, Preference):
        yield content.chosen.texts()
        yield content.rejected.texts()
    elif isinstance(content, Similar):
        yield from (iter((text,)) for text in content.texts())
    else:
        yield content.texts()


def spoken(content: Content) -> list[tuple[str, str]]:
    """A content's texts, each with the word that says what it is: "user", "chosen", "labels" ..."""
    match content:
        case Conversation():
            return [(message.role, _with_calls(message)) for message in content.messages]
        case PlainText():
            return [("text", content.text)]
        case Preference():
            better, worse = content.chosen.messages[-1], content.rejected.messages[-1]
            prompt = [(message.role, _with_calls(message)) for message in content.chosen.messages[:-1]]
            return [*prompt, ("chosen", _with_calls(better)), ("rejected", _with_calls(worse))]
        case Feedback():
            return [*spoken(content.conversation), ("thumbs", "up" if content.liked else "down")]
        case Labelled():
            return [("text", content.text), ("labels", ", ".join(content.labels) or "(none)")]
        case Similar():
            negatives = [("negative", text) for text in content.negatives]
            return [("anchor", content.anchor), ("positive", content.positive), *negatives]


def sample_dict(sample: Sample) -> dict[str, Any]:
    return {"line": sample.line, **_content_dict(sample.content)}


def _content_dict(content: Content) -> dict[str, Any]:
    match content:
        case Conversation():
            tools = {"tools": json.loads(content.tools)} if content.tools else {}
            return {"messages": [message.as_dict() for message in content.messages], **tools}
        case PlainText():
            return {"text": content.text}
        case Preference():
            prompt = [message.as_dict() for message in content.chosen.messages[:-1]]
            better, worse = (each.messages[-1].as_dict() for each in (content.chosen, content.rejected))
            return {"prompt": prompt, "chosen": better, "rejected": worse}
        case Feedback():
            return {**_content_dict(content.conversation), "liked": content.liked}
        case Labelled():
            return {"text": content.text, "labels": list(content.labels)}
        case Similar():
            return {"anchor": content.anchor, "positive": content.positive, "negatives": list(content.negatives)}


def _with_calls(message: Message) -> str:
    calls = json.loads(message.more).get("tool_calls", ()) if message.more else ()
    written = [json.dumps(each.get("function", each), ensure_ascii=False) for each in calls]
    return "\n".join(text for text in (message.content, *written) if text)


def _oddities(conversation: Conversation) -> Iterator[str]:
    """What is allowed but seldom meant, and what many chat templates reject."""
    roles = [message.role for message in conversation.messages]
    if "system" in roles[1:]:
        yield "a system message that is not the first"
    if any(one == other and one in ("user", "assistant") for one, other in pairwise(roles)):
        yield "two turns in a row by the same side"
    if roles[-1] != "assistant":
        yield "nothing is learnt from what follows the last answer"


def _example(value: Any) -> str:
    if not isinstance(value, str):
        # Cut by the printer; of a large list only the beginning is written.
        value = json.dumps(value[:3] if isinstance(value, list) else value, ensure_ascii=False, default=str)
    return printable(" ".join(value[: 4 * _EXAMPLE_CHARACTERS].split()), _EXAMPLE_CHARACTERS)
