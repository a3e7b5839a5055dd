"""Which format a text is, by what it holds first and by its name second."""

from __future__ import annotations

import json

from engine.data.files.chunk import FoundFormat
from engine.data.files.csv_dialect import Dialect, dialect_of

_JSON_NAMES = (".jsonl", ".ndjson", ".jsonlines", ".ldjson", ".json")
_LINE_NAMES = _JSON_NAMES[:-1]
_TABLE_NAMES = (".csv", ".tsv", ".psv", ".tab")
_MARKDOWN_NAMES = (".md", ".markdown", ".mdx", ".rst")
_TEXT_NAMES = (".txt", ".text")
# A table without a telling name has at least so many records with the same number of fields.
_LEAST_RECORDS = 3


def text_format_of(text: str, suffix: str, is_whole: bool) -> FoundFormat:
    """Of a file that begins with `text` (wholly that when `is_whole`) and whose name ends in `suffix`."""
    start = text.lstrip()
    if start.startswith(("{", "[")) and (found := _json_format(start, suffix, is_whole)):
        return found
    if suffix in _JSON_NAMES:
        return "json" if suffix == ".json" and "\n" not in start.rstrip() else "jsonl"
    if suffix in _TABLE_NAMES:
        return "csv"
    if suffix in _MARKDOWN_NAMES:
        return "markdown"
    dialect = dialect_of(text, is_whole)
    if dialect.is_table and dialect.records >= _LEAST_RECORDS and (suffix not in _TEXT_NAMES or _is_tabbed(dialect)):
        return "csv"
    lines = [line for line in text.split("\n", 200)[:200] if line.strip()]
    if sum(line.lstrip().startswith("{") for line in lines) * 2 > len(lines) > 1 and suffix not in _TEXT_NAMES:
        return "jsonl"
    return "text"


def _is_tabbed(dialect: Dialect) -> bool:
    return dialect.delimiter == "\t"


def _json_format(start: str, suffix: str, is_whole: bool) -> FoundFormat | None:
    """JSON lines, one document, or neither. `start` begins with a bracket."""
    first, line_end, rest = start.partition("\n")
    second = rest.lstrip()
    inside = start[1:].lstrip()
    is_object = _is_object(first)
    if suffix in (*_TABLE_NAMES, *_MARKDOWN_NAMES, *_TEXT_NAMES) and not (
        is_object or (start.startswith("[") and inside.startswith("{")) or (is_whole and _is_json(start))
    ):
        return None  # `[id],text` in a table, `{name}` in a text
    if start.startswith("["):
        # `[1, 2]` on a line of its own is a bad row among others; an array of objects, or one left open at the end
        # of the line, is a whole file of another format.
        is_line = line_end and not inside.startswith("{") and first.rstrip().endswith("]")
        return "jsonl" if is_line and (suffix in _LINE_NAMES or second) else "json"
    if not line_end and ("\r{" in start or (suffix not in _LINE_NAMES and is_whole)):
        return "json"
    is_open = not is_object and second.startswith(('"', "}", "]"))
    if not inside or start[1:].lstrip(" \t\r").startswith("\n") or is_open:
        return "json"
    # One object alone may hold the list of rows within it.
    return "jsonl" if suffix in _LINE_NAMES or second else "json"


def _is_object(line: str) -> bool:
    return _is_json(line) and line.lstrip().startswith("{")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
