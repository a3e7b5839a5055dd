"""One record of text to one JSON object, or a sentence that says why not, for people rather than parsers."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from profiles.problem import printable

# A string as a whole, an unclosed one to the end of the text, or a bracket.
_OUTSIDE_TEXT = re.compile(r'"(?:[^"\\]++|\\.)*+"?|([][{}])', re.DOTALL)
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
_TYPE_NAMES = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


# No row of a person's is nested so deeply, and whatever walks a value later needs stack for every level.
_MAX_DEPTH = 100


class NotAnObject(Exception):
    """Why a record gives no row; the message completes the sentence "line 7 ..."."""


def parse_object(text: str, is_unfinished: bool, text_line: int = 0) -> dict[str, Any]:
    """The object that `text` is. Raises NotAnObject.

    `is_unfinished` says that the record lacks its end, as a file's last does that is still being copied. `text_line`
    is the line of the file at which the record begins where its own number is not that of a line.
    """
    try:
        # The count is only of brackets that there may be, those within strings included.
        if text.count("[") + text.count("{") > _MAX_DEPTH and _is_deep(text):
            raise NotAnObject(f"is nested more than {_MAX_DEPTH} deep")
        value = _DECODER.decode(text)
        # Half of a surrogate pair can be written as an escape, but no tokenizer can encode it.
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise NotAnObject(_explain(error, is_unfinished, text_line)) from None
    except UnicodeEncodeError as error:
        half = printable(error.object[error.start])
        raise NotAnObject(f"has half an emoji: the lone surrogate {half}") from None
    except ValueError as error:
        # Python refuses to read integers of more digits than this (sys.set_int_max_str_digits).
        assert "digits" in str(error), error
        raise NotAnObject("has a number of more than 4,300 digits") from None
    if not isinstance(value, dict):
        raise NotAnObject(f"is {type_name(value)}; each {'row' if text_line else 'line'} must be an object")
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


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise NotAnObject(f"holds the number {printable(digits, 20)}, which is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_float=_finite)


_COMMA = "Illegal trailing comma"
"""As Python's decoder calls it since 3.13."""


def _is_deep(text: str) -> bool:
    depth = 0
    for match in _OUTSIDE_TEXT.finditer(text):
        bracket = match.group(1)
        depth += (bracket in ("[", "{")) - (bracket in ("]", "}"))
        if depth > _MAX_DEPTH:
            return True
    return False


def _at_its_comma(error: json.JSONDecodeError) -> json.JSONDecodeError:
    """`error`, at the comma where that is one too many: Pythons before 3.13 point at the bracket after it."""
    before = error.doc[: error.pos].rstrip()
    if before.endswith(",") and error.doc[error.pos : error.pos + 1] in ("}", "]"):
        return json.JSONDecodeError(_COMMA, error.doc, len(before) - 1)
    return error


def _explain(error: json.JSONDecodeError, is_unfinished: bool, text_line: int) -> str:
    error = _at_its_comma(error)
    rest = error.doc[error.pos :]
    at = f"at column {error.colno:,}"
    if text_line:
        at = f"at its character {error.pos + 1:,} (line {text_line + error.lineno - 1:,} of the file)"
    if not rest.strip() or error.msg.startswith("Unterminated string"):
        return (
            "is cut off; the file may still be copying" if is_unfinished else f"is cut off in a value that begins {at}"
        )
    if error.msg.startswith("Extra data"):
        return f"goes on after its object ends, {at}" + ("" if text_line else "; put one object on each line")
    if word := next((word for word in _PYTHON_WORDS if rest.startswith(word)), None):
        return f"has Python's {word} {at}; JSON writes {_PYTHON_WORDS[word]}"
    if rest.startswith("'"):
        return f"has a single quote {at}; JSON wants double quotes"
    if error.msg.startswith(_COMMA):
        return f"has a comma too many before a closing bracket, {at}"
    if error.msg.startswith("Invalid control character"):
        return f"has a raw control character ({printable(rest[0])}) inside text, {at}; write it as an escape"
    if error.pos == 0:
        return f"is not JSON: it begins with {printable(rest[0])}"
    return f"is not JSON {at}: {error.msg[0].lower()}{error.msg[1:]}"
