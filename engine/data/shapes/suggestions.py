"""Other ways to read a source, each ready to be taken up with one key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.data.contents import Unusable
from engine.data.shapes.names import Match, Unclear
from engine.data.shapes.parts import KIND_WORDS, kind_of_shape, objective_for
from engine.data.shapes.reading_value import Reading
from engine.data.shapes.recogniser import Recogniser
from engine.data.source import Shape, Source
from profiles.problem import printable

# Rows that another reading is tried on.
_TRIED_ROWS = 32
_OTHERS: tuple[Shape, ...] = ("messages", "pair", "preference", "feedback", "labelled", "similar", "text")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """`source` is what to read instead; `words` say what that would mean."""

    words: str
    source: Source


def suggestions_for(
    source: Source, reading: Reading | None, first_rows: Sequence[Mapping[str, Any]]
) -> tuple[Suggestion, ...]:
    """Readings that the first rows allow besides the one in use, the likeliest first."""
    rows = first_rows[:_TRIED_ROWS]
    if not rows or source.shape == "template" or source.answer_template:
        return ()
    if reading is None:
        return tuple(_choices(source, rows))
    return tuple(_other_shapes(source, reading, rows))


def _choices(source: Source, rows: Sequence[Mapping[str, Any]]) -> Iterator[Suggestion]:
    """Each column that may be meant, where a person has to say which one it is."""
    recogniser = Recogniser(source)
    unclear = next((match for row in rows if isinstance(match := recogniser.match(row), Unclear)), None)
    if unclear is None:
        return
    for column in unclear.choices:
        chosen = replace(source, columns={**source.columns, unclear.part: column})
        yield Suggestion(f"take `{printable(column, 40)}` as the {unclear.part}", chosen)


def _other_shapes(source: Source, reading: Reading, rows: Sequence[Mapping[str, Any]]) -> Iterator[Suggestion]:
    others = [replace(source, shape=shape, columns={}) for shape in _OTHERS if shape != reading.shape]
    if reading.shape == "preference":
        chosen = reading.columns["chosen"]
        others.insert(0, replace(source, shape="pair", columns={"answer": chosen}))
        others.insert(0, replace(source, shape="messages", columns={"messages": chosen}))
    for other in others:
        recogniser = Recogniser(other)
        matches = [match for row in rows if isinstance(match := recogniser.match(row), Match)]
        if len(matches) < len(rows) or not _all_usable(recogniser, rows):
            continue
        kind = kind_of_shape(matches[0].shape)
        # Thumbs are passed over where a person wants conversations.
        parts = {part: column for part, column in matches[0].columns.items() if part != "liked" or kind == "feedback"}
        columns = ", ".join(printable(column, 40) for column in parts.values())
        yield Suggestion(f"read {columns} as {KIND_WORDS[kind]}, to learn by {objective_for(kind)}", other)


def _all_usable(recogniser: Recogniser, rows: Sequence[Mapping[str, Any]]) -> bool:
    try:
        for row in rows:
            recogniser.recognise(row)
    except Unusable:
        return False
    return True
