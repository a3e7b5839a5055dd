"""Records as bytes: one JSON object on one line, in the journal, on the worker's channel and the control socket."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def to_line(record: dict[str, Any]) -> bytes:
    """`record` as one line of JSON with its newline; a number that is not finite becomes null, a path its text.

    Raises TypeError for values JSON has no form for, which is a bug of the caller.
    """
    try:
        text = _encode(record)
    except ValueError:  # a float that is nan or infinite
        text = _encode(_finite(record))
    # A lone surrogate has no UTF-8 form; backslashreplace writes it as \udXXX, which is how JSON escapes it.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def from_line(line: bytes) -> dict[str, Any] | None:
    """The JSON object on `line`, or None when it is anything else: torn, not UTF-8, a list, a bare number."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _encode(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a scalar of numpy or torch
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written to a journal")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return _finite(_plain(value))
