"""Which module cuts and parses which format."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.files import documents, json_documents, json_lines, tables
from engine.data.files.chunk import Cuts, Layout, Parsed
from engine.data.files.stored import StoredFile
from engine.data.files.text_stream import TextStream

_CUTTERS = {
    "jsonl": json_lines.cut,
    "json": json_documents.cut,
    "csv": tables.cut,
    "text": documents.cut,
    "markdown": documents.cut,
}
_PARSERS = {
    "jsonl": json_lines.parse,
    "json": json_documents.parse,
    "csv": tables.parse,
    "text": documents.parse,
    "markdown": documents.parse,
}


def cuts_of(stored: StoredFile, layout: Layout, target_bytes: int, notes: list[str]) -> Cuts:
    """Runs of whole records of about `target_bytes`, in order, from one pass over a file. Raises Problem when the
    file is broken as a whole. What is worth saying beyond `layout` is added to `notes`."""
    if layout.format in ("parquet", "arrow"):
        from engine.data.files import columnar  # here, since it brings what only such files need

        yield from columnar.cut(stored, layout, target_bytes, notes)
    else:
        yield from _CUTTERS[layout.format](TextStream(stored, layout), layout, target_bytes)


def parse(data: bytes, layout: Layout, first_line: int, text_line: int) -> Iterator[Parsed]:
    """The records of a run that begins with number `first_line`, at line `text_line` of its file's text."""
    if layout.format in ("parquet", "arrow"):
        from engine.data.files import columnar

        return columnar.parse(data, layout, first_line, text_line)
    return _PARSERS[layout.format](data, layout, first_line, text_line)
