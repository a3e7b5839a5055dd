"""Rows to texts with labels and to pairs of similar texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.data.contents import Labelled, Similar, Unusable
from engine.data.shapes.conversations import Columns, Row, Used
from engine.data.shapes.values import (
    flag_in,
    has_column,
    label_in,
    labels_in,
    score_in,
    text_in,
    texts_in,
    type_name,
    value_at,
)

# On the scale of the STS tasks, 0 to 5, 4 says "mostly equivalent, some unimportant details differ".
_ALIKE_SHARE = 0.8


def columns_in(row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """The one column of this name, or the several that are named with commas between them."""
    if "," not in column or has_column(row, column):
        return (column,)
    return tuple(name for each in column.split(",") if (name := each.strip()))


def build_labelled(row: Row, columns: Columns, several: bool | None) -> tuple[Labelled, Used]:
    """`several` says whether any number of labels may hold, None to tell it from the row."""
    column = columns["text"]
    text = text_in(value_at(row, column), column)
    used: Used = (column,)
    if (further := columns.get("further")) and value_at(row, further) is not None:
        text = f"{text}\n\n{text_in(value_at(row, further), further)}"
        used = (*used, further)
    if not text.strip():
        raise Unusable(f"has an empty {column}: there is nothing to classify")
    label_columns = columns_in(row, columns["label"])
    labels, is_list = _labels(row, label_columns, bool(several))
    if several is False and len(labels) != 1:
        raise Unusable(f"has {len(labels)} labels in {columns['label']}, where other rows have one")
    return Labelled(text, labels, is_list if several is None else several), (*used, *label_columns)


def build_similar(row: Row, columns: Columns, highest_score: float) -> tuple[Similar, Used]:
    """`highest_score` is what a pair of the same meaning has in the score column."""
    anchor, positive = columns["anchor"], columns["positive"]
    one = text_in(value_at(row, anchor), anchor)
    others = texts_in(value_at(row, positive), positive)
    if not one.strip() or not others:
        raise Unusable(f"has an empty {positive if one.strip() else anchor}: there is nothing to compare")
    used: Used = (anchor, positive)
    negatives: tuple[str, ...] = ()
    if "negative" in columns:
        names = columns_in(row, columns["negative"])
        negatives = tuple(text for name in names for text in texts_in(value_at(row, name), name))
        used = (*used, *names)
    if score_column := columns.get("score"):
        _require_alike(value_at(row, score_column), score_column, highest_score)
        used = (*used, score_column)
    return Similar(one, others[0], negatives), used


def _labels(row: Row, columns: tuple[str, ...], divide: bool) -> tuple[tuple[str, ...], bool]:
    if len(columns) == 1:
        return labels_in(value_at(row, columns[0]), columns[0], divide)
    held = []
    for column in columns:
        value = value_at(row, column)
        flag = flag_in(value)
        if flag is None:
            raise Unusable(f"has {type_name(value)} in {column}; wanted 1 or 0 for a class of its own")
        if flag:
            held.append(label_in(column, column))
    return tuple(held), True


def _require_alike(value: Any, column: str, highest: float) -> None:
    score = score_in(value)
    if score is None:
        raise Unusable(f"has {type_name(value)} in {column}; wanted a number that says how alike the two are")
    if score < _ALIKE_SHARE * highest:
        least = _ALIKE_SHARE * highest
        raise Unusable(
            f"has a {column} of {score:g}: only pairs of {least:g} and more (of {highest:g}) are alike enough to learn"
        )
