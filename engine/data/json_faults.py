"""One line of text to one JSON object, or a sentence that says why not, for people rather than parsers."""

from __future__ import annotations

import json
from typing import Any

from profiles.problem import printable

_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
_TYPE_NAMES = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


class NotAnObject(Exception):
    """Why a line gives no row; the message completes the sentence "line 7 ..."."""


def parse_object(text: str, is_unfinished: bool) -> dict[str, Any]:
    """The object written on one line. Raises NotAnObject.

    `is_unfinished` says that the line lacks its line end, as a file does that is still being copied.
    """
    try:
        value = _DECODER.decode(text)
        # Half of a surrogate pair can be written as an escape, but no tokenizer can encode it.
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise NotAnObject(_explain(error, is_unfinished)) from None
    except UnicodeEncodeError as error:
        half = printable(error.object[error.start])
        raise NotAnObject(f"has half an emoji: the lone surrogate {half}") from None
    except RecursionError:
        raise NotAnObject("is nested too deeply") from None
    except ValueError as error:
        # Python refuses to read integers of more digits than this (sys.set_int_max_str_digits).
        assert "digits" in str(error), error
        raise NotAnObject("has a number of more than 4,300 digits") from None
    if not isinstance(value, dict):
        raise NotAnObject(f"is {type_name(value)}; each line must be an object")
    return value


def type_name(value: object) -> str:
    """What JSON value this is, in words: "a number", "null", "text"."""
    return "null" if value is None else _TYPE_NAMES[type(value)]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise NotAnObject(f"has `{printable(key)}` twice")
            seen.add(key)
    return result


def _refuse_constant(name: str) -> float:
    raise NotAnObject(f"holds {name}, which JSON does not have; write null or leave it out")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)


def _explain(error: json.JSONDecodeError, is_unfinished: bool) -> str:
    at, rest = f"at column {error.colno:,}", error.doc[error.pos :]
    before = error.doc[: error.pos].rstrip()
    if not rest.strip() or error.msg.startswith("Unterminated string"):
        return (
            "is cut off; the file may still be copying" if is_unfinished else f"is cut off in a value that begins {at}"
        )
    if error.msg.startswith("Extra data"):
        return f"goes on after its object ends, {at}; put one object on each line"
    if word := next((word for word in _PYTHON_WORDS if rest.startswith(word)), None):
        return f"has Python's {word} {at}; JSON writes {_PYTHON_WORDS[word]}"
    if rest.startswith("'"):
        return f"has a single quote {at}; JSON wants double quotes"
    # Python 3.13 points at the comma, earlier versions at the bracket after it.
    if error.msg.startswith("Illegal trailing comma") or (before.endswith(",") and rest[0] in "}]"):
        return f"has a comma too many before a closing bracket, {at}"
    if error.msg.startswith("Invalid control character"):
        return f"has a raw control character ({printable(rest[0])}) inside text, {at}; write it as an escape"
    if error.pos == 0:
        return f"is not JSON: it begins with {printable(rest[0])}"
    return f"is not JSON {at}: {error.msg[0].lower()}{error.msg[1:]}"
