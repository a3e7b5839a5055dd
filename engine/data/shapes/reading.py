"""How a source is to be understood, decided from its first rows and what a person said of it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from engine.data.contents import Kind, Unusable, kind_of
from engine.data.rows import shown
from engine.data.shapes.labelled import columns_in
from engine.data.shapes.names import Match, Unclear
from engine.data.shapes.parts import PARTS, close_part, goes_with, kind_of_shape
from engine.data.shapes.reading_value import Reading
from engine.data.shapes.recogniser import Recogniser
from engine.data.shapes.values import has_column, labels_in, score_in, shown_names, value_at
from engine.data.source import Shape, Source
from profiles.problem import Problem, printable

# The scales that people score likeness on: a share, the STS tasks' 5, 10, and per cent.
_SCALES = (1.0, 5.0, 10.0, 100.0)


class UnclearColumns(Problem):
    """Nothing tells which column is what, and a person has to say."""


def reading_of(source: Source, first_rows: Sequence[Mapping[str, Any]]) -> Reading:
    """The kind, shape and columns of most of the first rows (some hundred are plenty).

    Raises Problem for parts, columns or templates of `source` that there are not, and where nothing tells which
    column is what (UnclearColumns, which lists the columns and says what to write).
    """
    _require_known_parts(source)
    recogniser = Recogniser(source)
    _require_columns(source, first_rows)
    if source.shape == "template" or source.answer_template or source.prompt_template:
        return Reading("conversation" if source.prompt_template else "text", "template", {})
    matches = [recogniser.match(row) for row in first_rows]
    understood = [(row, match) for row, match in zip(first_rows, matches, strict=True) if isinstance(match, Match)]
    if not understood:
        raise _question(source, first_rows, matches)
    kind = _usual_kind(recogniser, understood)
    agreeing = [(row, match) for row, match in understood if goes_with(kind_of_shape(match.shape), kind)]
    commonest = Counter((match.shape, tuple(match.columns.items())) for _, match in agreeing).most_common(1)
    shape, columns = commonest[0][0]
    return Reading(
        kind=kind,
        shape=shape,
        columns=dict(columns),
        several=any(_holds_several(row, match) for row, match in agreeing),
        highest_score=_highest_score(agreeing),
    )


def how_to_say(source: Source, shape: Shape, columns: Mapping[str, str]) -> str:
    """What to write into a spec to have `source` read so."""
    told = ", ".join(f"{part} = {_quoted(column)}" for part, column in columns.items())
    path = _quoted(source.path)
    return f"data.train = [{{path = {path}, shape = {_quoted(shape)}, columns = {{{told}}}}}]"


def _how_to_ask(source: Source, shape: Shape, columns: Mapping[str, str]) -> str:
    """The same for a command line, then for a spec."""
    options = " ".join(f"--column {part}={shlex.quote(printable(name, 200))}" for part, name in columns.items())
    return f"{options}, or in a spec {how_to_say(source, shape, columns)}"


def _quoted(value: object) -> str:
    text = printable(value, 200).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _require_known_parts(source: Source) -> None:
    if source.shape != "auto":
        known = {part.name for part in PARTS[source.shape]}
        for part in source.columns:
            if part not in known:
                where = f"{shown(source.path)}, columns.{printable(part)}"
                raise Problem(where, f'is no part of the shape "{source.shape}"', close_part(part, source.shape))
        return
    everything = dict.fromkeys(part.name for parts in PARTS.values() for part in parts)
    for part in source.columns:
        if part not in everything:
            where = f"{shown(source.path)}, columns.{printable(part)}"
            raise Problem(where, "is no part of any shape", f"The parts: {', '.join(everything)}.")


def _require_columns(source: Source, rows: Sequence[Mapping[str, Any]]) -> None:
    """A column that none of the first rows has was written wrongly."""
    for part, column in source.columns.items():
        for name in columns_in(rows[0], column) if rows else ():
            if not any(has_column(row, name) for row in rows):
                where = f"{shown(source.path)}, columns.{part}"
                what = f"names the column `{printable(name, 40)}`, which the rows do not have"
                raise Problem(where, what, f"The columns: {shown_names(_columns(rows), 20)}.")


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _usual_kind(recogniser: Recogniser, understood: Sequence[tuple[Mapping[str, Any], Match]]) -> Kind:
    """What most usable rows hold; what most rows are meant as where none is usable. The first of two alike."""
    kinds: Counter[Kind] = Counter()
    for row, _ in understood:
        try:
            kinds[kind_of(recogniser.recognise(row).content)] += 1
        except Unusable:
            continue
    kinds = kinds or Counter(kind_of_shape(match.shape) for _, match in understood)
    return kinds.most_common(1)[0][0]


def _holds_several(row: Mapping[str, Any], match: Match) -> bool:
    if match.shape != "labelled":
        return False
    columns = columns_in(row, match.columns["label"])
    if len(columns) > 1:
        return True
    value = value_at(row, columns[0])
    # "a|b" is two classes only where the column's name is a plural; "New York, NY" may be one.
    divide = columns[0].casefold().endswith("s") and isinstance(value, str)
    try:
        labels, is_list = labels_in(value, columns[0], divide)
    except Unusable:
        return False
    return len(labels) != 1 or (is_list and not isinstance(value, str))


def _highest_score(rows: Sequence[tuple[Mapping[str, Any], Match]]) -> float:
    scores = [
        score
        for row, match in rows
        if match.shape == "similar" and "score" in match.columns
        if (score := score_in(value_at(row, match.columns["score"]))) is not None
    ]
    highest = max(scores, default=1.0)
    return next((scale for scale in _SCALES if highest <= scale), highest)


def _question(
    source: Source, rows: Sequence[Mapping[str, Any]], matches: Sequence[Match | Unclear | None]
) -> UnclearColumns:
    """What a person is to say about a source of which no row is understood."""
    columns = _columns(rows)
    unclear = next((match for match in matches if isinstance(match, Unclear)), None)
    where = shown(source.path)
    if not rows:
        return UnclearColumns(where, "has no rows that can be read", "Correct the file, or say how it is to be read.")
    if unclear is not None:
        choices = " or ".join(f"`{printable(each, 40)}`" for each in unclear.choices)
        what = f"does not tell which column is the {unclear.part}: {choices} (columns: {shown_names(columns, 20)})"
        shape, told = unclear.shape, {unclear.part: unclear.choices[0]}
        return UnclearColumns(where, what, f"Say which it is: {_how_to_ask(source, shape, told)}.")
    if source.shape != "auto":
        missing = [each.name for each in PARTS[source.shape] if each.required and each.name not in source.columns]
        what = f"has no column that is surely the {' or the '.join(missing)} (columns: {shown_names(columns, 20)})"
        told = {**source.columns, **dict.fromkeys(missing, "COLUMN")}
        return UnclearColumns(where, what, f"Say which it is: {_how_to_ask(source, source.shape, told)}.")
    what = f"has no columns that are known (columns: {shown_names(columns, 20)})"
    first, second = (*columns, "COLUMN", "COLUMN")[:2]
    if len(columns) == 1:
        return UnclearColumns(where, what, f"Say what it is: {_how_to_ask(source, 'text', {'text': first})}.")
    example = _how_to_ask(source, "pair", {"question": first, "answer": second})
    return UnclearColumns(where, what, f"Say which is which, such as {example}.")
