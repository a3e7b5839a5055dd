"""Plain text and Markdown: {"text": ...}, a whole file where it is short, else runs of whole paragraphs.

A row is numbered by the line it begins at. Markdown's front matter is no text to learn from and is left out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from engine.data.files.chunk import Cuts, Fault, Layout, Parsed
from engine.data.files.faults import binary_byte, excerpt_of, not_encoded
from engine.data.files.line_runs import cut_lines
from engine.data.files.text_lines import LongLine, lines_of
from engine.data.files.text_stream import TextStream

# A row ends at the first blank line past this: some 16,000 tokens, longer than nearly every article, so that most
# files stay whole, and short enough that a book gives rows to hold out.
_ROW_BYTES = 2**16
# Where no blank line comes, a row ends at the first line end past this. Prose is written in paragraphs a thousand
# times shorter.
_MOST_BYTES = 2**20


def cut(stream: TextStream, layout: Layout, target_bytes: int) -> Cuts:
    """Runs of whole rows, front matter left out."""
    return cut_lines(stream, layout, target_bytes, _rows)


def parse(data: bytes, layout: Layout, first_line: int, text_line: int) -> Iterator[Parsed]:
    used, number = 0, first_line
    for taken in _rows(lines_of(io.BytesIO(data), layout.line_end)):
        document = b"".join(taken)
        used += len(document)
        yield used, number, _value(document, layout)
        number += len(taken)


def _rows(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    """The lines of each row. Blank lines belong to the row before them, so that a row's beginning decides its end."""
    taken: list[bytes] = []
    size, is_done = 0, False
    for line in lines:
        is_blank = not line.strip()
        if taken and (isinstance(line, LongLine) or (is_done and not is_blank) or size > _MOST_BYTES):
            yield taken
            taken, size, is_done = [], 0, False
        if isinstance(line, LongLine):
            yield [line]
            continue
        taken.append(line)
        size += len(line)
        is_done = is_done or (is_blank and size >= _ROW_BYTES)
    if taken:
        yield taken


def _value(document: bytes, layout: Layout) -> dict[str, str] | Fault | None:
    if not document.strip():
        return None
    if b"\x00" in document:
        return Fault(binary_byte(document), excerpt_of(document))
    try:
        text = document.decode()
    except UnicodeDecodeError as error:
        return Fault(not_encoded(error, layout.encoding), excerpt_of(document))
    return {"text": text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")}
