"""Rows of one source to contents, as fast as rows with the same fields allow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from engine.data.contents import Content, Recognised, Unusable, kind_of
from engine.data.shapes.conversations import Used, build_messages, build_pair, build_text
from engine.data.shapes.judged import build_feedback, build_preference
from engine.data.shapes.labelled import build_labelled, build_similar, columns_in
from engine.data.shapes.messages import unknown_fields
from engine.data.shapes.names import Match, Unclear, match_columns
from engine.data.shapes.parts import KIND_WORDS, NEEDED_PARTS, PARTS, goes_with, kind_of_shape, shape_with
from engine.data.shapes.reading_value import Reading
from engine.data.shapes.template import OwnTemplate, columns_read
from engine.data.shapes.values import flag_in, has_column, shown_names, value_at
from engine.data.source import Shape, Source
from profiles.problem import printable

_WANTED = (
    "messages, prompt and completion, instruction and output, question and answer, chosen and rejected, "
    "text and label, anchor and positive, or text"
)
# Rows of one file seldom differ in their fields; a file whose every row has others would fill the memory.
_MOST_MATCHES = 4096
_SHAPES_WITH_MESSAGES = ("messages", "pair", "preference", "feedback")
_Matches = tuple[Match | Unclear | None, ...]


class Recogniser:
    """`source` says how rows are to be understood (None: by their fields); `reading` what was found out from the
    first rows, to which all others are held. Rows of another kind than the reading's are Unusable then.

    Raises Problem for templates that cannot be used.
    """

    def __init__(
        self,
        source: Source | None = None,
        reading: Reading | None = None,
        group_by: str | None = None,
        stratify_by: str | None = None,
    ):
        self._source, self._reading = source, reading
        self._group_by, self._stratify_by = group_by, stratify_by
        self._given: Mapping[str, str] = source.columns if source else {}
        self._shape: Shape = source.shape if source else "auto"
        if self._shape == "auto" and source is not None and (source.answer_template or source.prompt_template):
            self._shape = "template"
        if self._shape == "auto" and self._given:
            self._shape = shape_with(self._given) or "auto"
        self._template = OwnTemplate(source) if source is not None and self._shape == "template" else None
        self._known: dict[tuple[tuple[str, type], ...], _Matches] = {}
        self._names: dict[tuple[tuple[str, ...], Used], tuple[str, Used]] = {}
        self._template_columns: dict[tuple[str, ...], tuple[str, ...]] = {}

    def recognise(self, row: Mapping[str, Any]) -> Recognised:
        """What `row` means. Raises Unusable with the reason."""
        if self._template is not None:
            content: Content = self._template.build(row)
            return self._recognised(row, content, self._columns_of_template(tuple(row)), "template")
        match = self.match(row)
        if isinstance(match, Unclear):
            choices = " or ".join(f"`{printable(each, 40)}`" for each in match.choices)
            raise Unusable(f"does not tell which column is the {match.part}: {choices}")
        if match is None:
            raise Unusable(self._unknown(row))
        content, used = self._build(row, match)
        return self._recognised(row, content, used, match.shape)

    def match(self, row: Mapping[str, Any]) -> Match | Unclear | None:
        """Which shape the row has and what its columns play; never a template's."""
        key = tuple((name, type(value)) for name, value in row.items())
        if (matches := self._known.get(key)) is None:
            matches = self._matches(row)
            if len(self._known) < _MOST_MATCHES:
                self._known[key] = matches
        if self._shape != "auto":
            return next((match for match in matches if match is not None), None)
        judged = [self._judged(row, match) for match in matches if isinstance(match, Match)]
        if self._reading is None:
            return judged[0] if judged else next((match for match in matches if match is not None), None)
        return self._as_read(row, judged, self._reading) or next(
            (match for match in matches if match is not None), None
        )

    def _as_read(self, row: Mapping[str, Any], judged: Sequence[Match], reading: Reading) -> Match | None:
        """Of what a row may be, what most rows are; None where it is nothing that is known."""
        if same := next((match for match in judged if match.shape == reading.shape), None):
            return same
        other = next((match for match in judged if not goes_with(kind_of_shape(match.shape), reading.kind)), None)
        # Further columns may make a text of a labelled text, but a worse answer or a thumb has a meaning of its own.
        if other is not None and other.shape in ("preference", "feedback"):
            return other
        needed = [reading.columns[part.name] for part in PARTS[reading.shape] if part.required]
        if all(value_at(row, each) is not None for column in needed for each in columns_in(row, column)):
            return Match(reading.shape, reading.columns)
        return next((match for match in judged if match is not other), other)

    def _matches(self, row: Mapping[str, Any]) -> _Matches:
        """By the columns that hold something, then by all of them, so that a null is told of where it is missed."""
        filled = [name for name, value in row.items() if value is not None]
        texts = [name for name in filled if isinstance(row[name], str | list | dict)]
        given: dict[str, str] = {}
        for part, column in self._given.items():
            if all(has_column(row, each) for each in columns_in(row, column)):
                given[part] = column
            elif part in NEEDED_PARTS:
                return ()
        by_filled = match_columns(filled, texts, self._shape, given)
        if len(filled) == len(row):
            return (by_filled,)
        by_all = match_columns(list(row), texts, self._shape, given)
        if _is_within(by_filled, by_all):
            return (by_all,)
        return (by_filled, by_all)

    def _judged(self, row: Mapping[str, Any], match: Match) -> Match:
        """A conversation with thumbs is feedback, where the column that may hold them does."""
        if match.shape not in ("messages", "pair") or "liked" not in match.columns:
            return match
        columns = {part: column for part, column in match.columns.items() if part != "liked"}
        liked = match.columns["liked"]
        expected = self._reading is not None and self._reading.kind == "feedback"
        if self._shape != "auto" or not (expected or flag_in(value_at(row, liked)) is not None):
            return Match(match.shape, columns)
        if "messages" in columns:
            columns["answer"] = columns.pop("messages")
        columns.pop("history", None)
        return Match("feedback", {**columns, "liked": liked})

    def _build(self, row: Mapping[str, Any], match: Match) -> tuple[Content, Used]:
        columns = match.columns
        match match.shape:
            case "messages":
                return build_messages(row, columns)
            case "pair":
                return build_pair(row, columns)
            case "text":
                return build_text(row, columns)
            case "preference":
                return build_preference(row, columns)
            case "feedback":
                return build_feedback(row, columns)
            case "labelled":
                return build_labelled(row, columns, self._reading.several if self._reading else None)
            case "similar":
                return build_similar(row, columns, self._reading.highest_score if self._reading else 1.0)
            case other:
                raise AssertionError(other)

    def _recognised(self, row: Mapping[str, Any], content: Content, used: Used, shape: Shape) -> Recognised:
        kind = kind_of(content)
        if self._reading is not None and not goes_with(kind, self._reading.kind):
            raise Unusable(
                f"holds {KIND_WORDS[kind]} ({', '.join(used)}), and most rows of this file hold "
                f"{KIND_WORDS[self._reading.kind]}"
            )
        key = (tuple(row), used)
        if (names := self._names.get(key)) is None:
            names = self._used_and_unused(row, used)
            if len(self._names) < _MOST_MATCHES:
                self._names[key] = names
        words, unused = names
        unused = tuple(name for name in unused if row[name] is not None)
        if shape in _SHAPES_WITH_MESSAGES:
            unused += tuple(
                f"{column}[].{field}"
                for column in dict.fromkeys(used)
                if isinstance(value := value_at(row, column), list) and column not in ("tools", "history")
                for field in unknown_fields(value)
            )
        groups = (self._value(row, self._group_by), self._value(row, self._stratify_by))
        return Recognised(content, "template" if shape == "template" else words, unused, groups)

    def _used_and_unused(self, row: Mapping[str, Any], used: Used) -> tuple[str, Used]:
        """The used columns in words, and the others."""
        tops = {name for each in used for name in (each, each.partition(".")[0])}
        named = (self._group_by, self._stratify_by)
        unused = tuple(name for name in row if name not in tops and name not in named)
        return ", ".join(dict.fromkeys(used)), unused

    @staticmethod
    def _value(row: Mapping[str, Any], column: str | None) -> str | None:
        value = None if column is None else value_at(row, column)
        if value is None or isinstance(value, str):
            return value
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)

    def _columns_of_template(self, columns: tuple[str, ...]) -> Used:
        assert self._source is not None
        if columns not in self._template_columns and len(self._template_columns) < _MOST_MATCHES:
            self._template_columns[columns] = columns_read(self._source, columns)
        return self._template_columns.get(columns, columns)

    def _unknown(self, row: Mapping[str, Any]) -> str:
        for part, column in self._given.items():
            for each in columns_in(row, column):
                if not has_column(row, each):
                    return f"has no `{printable(each, 40)}`, which is to be the {part} (found: {shown_names(row)})"
        if self._shape != "auto":
            needed = [each.name for each in PARTS[self._shape] if each.required and each.name not in self._given]
            return f"has no column that is surely the {' or the '.join(needed)} (found: {shown_names(row)})"
        return f"has no fields that are known (found: {shown_names(row)}); wanted {_WANTED}"


def _is_within(filled: Match | Unclear | None, whole: Match | Unclear | None) -> bool:
    """Whether `whole` is the same reading with parts that are null here; if they may be, tells who reads them."""
    if not isinstance(filled, Match) or not isinstance(whole, Match):
        return False
    return filled.shape == whole.shape and filled.columns.items() <= whole.columns.items()


def recognise(
    row: Mapping[str, Any],
    source: Source | None = None,
    group_by: str | None = None,
    stratify_by: str | None = None,
    reading: Reading | None = None,
) -> Recognised:
    """What one row means. Raises Unusable with the reason. For many rows of a source make one Recogniser."""
    if source is None and reading is None and group_by is None and stratify_by is None:
        return _BY_FIELDS.recognise(row)
    return Recogniser(source, reading, group_by, stratify_by).recognise(row)


_BY_FIELDS = Recogniser()
