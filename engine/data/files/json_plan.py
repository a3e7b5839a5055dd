"""Where in a JSON document its rows stand."""

from __future__ import annotations

import io
import json
from pathlib import Path

from engine.data.files.json_documents import enter, next_key, no_list
from engine.data.files.json_scanner import Scanner
from engine.data.rows import shown
from profiles.problem import Problem, printable

_DEEPEST = 4
# A list of these is one conversation, so that the object around it is a row and no document of rows.
_OF_MESSAGES = ({"role", "content"}, {"from", "value"}, {"role", "value"}, {"from", "content"})
_BY_ROWS = "Write it row by row, with pandas for example: df.to_json(FILE, orient='records', lines=True)."


def records_of(path: Path, text: bytes, is_whole: bool, said: str) -> tuple[str, ...]:
    """The keys that lead to the list of rows in a document that begins with `text`; none where the rows are the
    document's own values. `said` is the person's word, "data.items". Raises Problem when that is wrong, or when it
    has to be said."""
    if said:
        keys = tuple(said.split("."))
        if is_whole and not enter(Scanner(io.BytesIO(text)), keys):
            raise no_list(path, keys)
        return keys
    scanner = Scanner(io.BytesIO(text))
    if scanner.peek() != b"{":
        return ()
    _, _, is_complete = scanner.value()
    if is_complete and scanner.peek():
        return ()  # several values, one after another
    if is_complete and is_whole:
        _refuse_columns(path, text)
    lists: list[tuple[str, ...]] = []
    begin = Scanner(io.BytesIO(text))
    begin.peek()
    begin.take()
    if not _collect(begin, (), lists):
        return ()
    least = min((len(keys) for keys in lists), default=0)
    nearest = [keys for keys in lists if len(keys) == least]
    if len(nearest) > 1:
        names = ", ".join(printable(".".join(keys), 40) for keys in nearest[:8])
        raise Problem(
            shown(path),
            f"holds several lists of objects: {names}",
            f'Say which one holds the rows: records = "{printable(".".join(nearest[0]), 40)}".',
        )
    return nearest[0] if nearest else ()


def _collect(scanner: Scanner, keys: tuple[str, ...], lists: list[tuple[str, ...]]) -> bool:
    """Add the lists of objects within the object that the place is in. False when it looks like a row itself."""
    while (key := next_key(scanner)) is not None:
        byte, here = scanner.peek(), (*keys, key)
        if byte == b"{" and len(here) < _DEEPEST:
            scanner.take()
            if not _collect(scanner, here, lists):
                return False
            if scanner.peek() == b"}":
                scanner.take()
        elif byte == b"[":
            value, _, _ = scanner.value()
            inside = Scanner(io.BytesIO(value[1:]))
            if inside.peek() != b"{":
                continue
            first, _, is_complete = inside.value()
            if is_complete and _is_message(first):
                return False
            lists.append(here)
        else:
            scanner.value()
    return True


def _is_message(value: bytes) -> bool:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return False
    return any(names <= set(found) for names in _OF_MESSAGES)


def _refuse_columns(path: Path, text: bytes) -> None:
    """Raises Problem for a table that is written column by column."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    columns = list(value.values()) if isinstance(value, dict) else []
    if len(columns) < 2:
        return
    are_lists = all(isinstance(each, list) and len(each) > 1 for each in columns) and all(
        isinstance(cell, str | int | float | None) for each in columns for cell in each
    )
    are_numbered = all(isinstance(each, dict) and "0" in each for each in columns)
    if (are_lists and len({len(each) for each in columns}) == 1) or are_numbered:
        raise Problem(shown(path), "is a table written column by column", _BY_ROWS)
