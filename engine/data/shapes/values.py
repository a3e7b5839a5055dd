"""Values of a row's columns as text, lists, flags and labels, or the reason why they are none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from engine.data.contents import Unusable
from profiles.problem import printable

_TYPE_NAMES = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    bytes: "binary data",
}
_LIKED = frozenset(
    {"true", "1", "1.0", "+1", "yes", "y", "up", "thumbs_up", "thumb_up", "👍"}
    | {"good", "like", "liked", "positive", "desirable"}
)
_DISLIKED = frozenset(
    {"false", "0", "0.0", "-1", "no", "n", "down", "thumbs_down", "thumb_down", "👎"}
    | {"bad", "dislike", "disliked", "negative", "undesirable"}
)
# Between labels in one cell of a table.
_BETWEEN_LABELS = re.compile(r"\s*[|;,]\s*")


def type_name(value: object) -> str:
    """What kind of value this is, in words: "a number", "null", "text"."""
    return "null" if value is None else _TYPE_NAMES.get(type(value), "a value of another kind")


def value_at(row: Mapping[str, Any], column: str) -> Any:
    """A column's value; "data.question" also finds the field of an object. None where there is none."""
    if column in row or "." not in column:
        return row.get(column)
    value: Any = row
    for name in column.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def has_column(row: Mapping[str, Any], column: str) -> bool:
    """Whether the row has the column (or path into an object), be it null."""
    if column in row:
        return True
    outer, dot, inner = column.partition(".")
    return bool(dot) and isinstance(row.get(outer), Mapping) and has_column(row[outer], inner)


def text_in(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise Unusable(f"has {type_name(value)} in {place}; wanted text")
    return value


def answer_in(value: Any, place: str) -> str:
    """Text; of several accepted answers (a list, or SQuAD's object with a list `text`) the first."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        value, place = value["text"], f"{place}.text"
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = value[0]
    return text_in(value, place)


def list_in(value: Any) -> Any:
    """`value`, or the list or object that it is the JSON text of, as tables write them into one cell."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def flag_in(value: Any) -> bool | None:
    """Thumbs up or down, however it was written; None for what is neither."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str | int | float):
        return None
    word = str(value).strip().casefold()
    word = word if len(word) <= 2 else word.replace(" ", "_").replace("-", "_")
    return True if word in _LIKED else False if word in _DISLIKED else None


def score_in(value: Any) -> float | None:
    """A number, also as text or as true and false; None for what is none."""
    if not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if number == number and abs(number) != float("inf") else None


def label_in(value: Any, place: str) -> str:
    """One class as text: whole numbers without a point, true and false as words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        raise Unusable(f"has the number {value:g} in {place}; wanted a class")
    label = text_in(value, place).strip()
    if not label:
        raise Unusable(f"has an empty {place}; wanted a class")
    return label


def labels_in(value: Any, place: str, divide: bool) -> tuple[tuple[str, ...], bool]:
    """The classes in a cell, each once, and whether the cell is a list of them. `divide` takes text apart, too."""
    value = list_in(value)
    if isinstance(value, list):
        return tuple(dict.fromkeys(label_in(each, f"{place}[{at}]") for at, each in enumerate(value))), True
    if isinstance(value, str) and divide:
        if not value.strip():
            return (), True
        return tuple(dict.fromkeys(each for each in _BETWEEN_LABELS.split(value.strip()) if each)), True
    return (label_in(value, place),), False


def texts_in(value: Any, place: str) -> tuple[str, ...]:
    """One text or a list of them, as a tuple; nothing for null and for empty ones."""
    value = list_in(value)
    several = value if isinstance(value, list) else [] if value is None else [value]
    texts = [text_in(each, place if several is not value else f"{place}[{at}]") for at, each in enumerate(several)]
    return tuple(text for text in texts if text.strip())


def shown_names(names: Any, limit: int = 6) -> str:
    """The first column names for a message; "none" for none."""
    listed = list(names)
    more = f" and {len(listed) - limit:,} more" if len(listed) > limit else ""
    return ", ".join(printable(name, 40) for name in listed[:limit]) + more or "none"
