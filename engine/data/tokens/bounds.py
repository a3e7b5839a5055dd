"""How much a single operation in a template may make: what Python does in one go can be neither interrupted nor limited
from outside, so its size is worked out before.

A text may have LIMIT_CHARACTERS, a whole number LIMIT_BITS. Lists that hold each other many times over count as often
as they would be written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

# Longer than any row that can be learnt from, and as much memory as a small process may take.
LIMIT_CHARACTERS = 1 << 26
# Larger numbers are nothing that a text needs; a product of two that fill the memory takes hours.
LIMIT_BITS = 1 << 12
_DIGITS = re.compile(r"\d+")
_ROUNDED_DIGITS = 300
"""Of a float."""


class OverSize(Exception):
    """A template wrote, or was about to build, more than it may."""


def require(size: int) -> None:
    if size > LIMIT_CHARACTERS:
        raise OverSize


def size_of(value: Any) -> int:
    """Characters that `value` would be written with, about; of what is neither text, number nor a collection, none.
    Raises OverSize as soon as it is more than may be."""
    if isinstance(value, str):
        return len(value)
    size, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            size += len(each)
        elif isinstance(each, dict):
            waiting += each.keys()
            waiting += each.values()
        elif isinstance(each, list | tuple | set | frozenset):
            waiting += each
        size += 1
        require(size + len(waiting))
    return size


def written(value: Any) -> Any:
    """`value`, which may be written. Raises OverSize."""
    if not isinstance(value, str | int | float | None):
        require(size_of(value))
    return value


def joined(parts: Iterable[Any], between: str = "") -> str:
    """The parts as text, one after another. Raises OverSize."""
    texts: list[str] = []
    size = 0
    for part in parts:
        texts.append(part if isinstance(part, str) else str(written(part)))
        size += len(texts[-1]) + len(between)
        require(size)
    return between.join(texts)


def operated(operator: str, left: Any, right: Any) -> None:
    """Raises OverSize where `left operator right` would make too much."""
    if operator == "*":
        for repeated, count in ((left, right), (right, left)):
            if isinstance(repeated, str | list | tuple | bytes) and isinstance(count, int):
                require(len(repeated) * max(0, count))
        _require_bits(_bits(left) + _bits(right))
    elif operator == "**":
        if isinstance(right, int | float):
            _require_bits(int(min(abs(right), LIMIT_BITS + 1)) * max(1, _bits(left)))
    elif operator == "+":
        if isinstance(left, str | list | tuple | bytes) and isinstance(right, str | list | tuple | bytes):
            require(len(left) + len(right))
        _require_bits(max(_bits(left), _bits(right)))
    elif operator == "%" and isinstance(left, str | bytes):
        widths(str(left))
        if "*" in str(left):
            for each in right if isinstance(right, tuple) else (right,):
                require(each if isinstance(each, int) else 0)
        written(right)


def widths(form: str) -> None:
    """Raises OverSize for a format that asks for a width or precision beyond what may be written."""
    for digits in _DIGITS.findall(form):
        require(int(digits) if len(digits) <= len(str(LIMIT_CHARACTERS)) else LIMIT_CHARACTERS + 1)


def method(text: str, name: str) -> Callable[..., Any] | None:
    """A method of `text` that may make a long text of a short one, with its size looked at before; None for others."""

    def padded(width: int, *more: Any) -> Any:
        require(width)
        return getattr(text, name)(width, *more)

    def expanded(tabsize: int = 8) -> str:
        require(len(text) + text.count("\t") * tabsize)
        return text.expandtabs(tabsize)

    def translated(table: Any) -> str:
        require(len(text) * max(1, _longest(table)))
        return text.translate(table)

    bounded: dict[str, Callable[..., Any]] = {
        **dict.fromkeys(("center", "ljust", "rjust", "zfill"), padded),
        "expandtabs": expanded,
        "join": lambda parts: joined(_texts(parts), text),
        "replace": lambda old, new, count=-1: replaced(text, old, new, count),
        "translate": translated,
    }
    return bounded.get(name)


def replaced(text: str, old: str, new: str, count: int = -1) -> str:
    times = text.count(old) if count < 0 else min(count, text.count(old))
    require(len(text) + times * len(new))
    return text.replace(old, new, count)


def rounded(precision: int) -> None:
    if abs(precision) > _ROUNDED_DIGITS:
        raise OverSize


def _texts(parts: Iterable[Any]) -> Iterable[str]:
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"expected a text to join, found {type(part).__name__}")
        yield part


def _longest(table: Any) -> int:
    values = table.values() if isinstance(table, dict) else ()
    return max((len(value) for value in values if isinstance(value, str)), default=1)


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _require_bits(bits: int) -> None:
    if bits > LIMIT_BITS:
        raise OverSize
