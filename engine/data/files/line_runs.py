"""Cutting for formats whose records are whole lines: tables, text and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engine.data.files.chunk import Cut, Cuts, Layout
from engine.data.files.faults import too_long
from engine.data.files.text_lines import LongLine, lines_of
from engine.data.files.text_stream import TextStream


def cut_lines(
    stream: TextStream, layout: Layout, target_bytes: int, records: Callable[[Iterator[bytes]], Iterator[list[bytes]]]
) -> Cuts:
    """Runs of the records that `records` makes of lines: each the lines it has, or one LongLine."""
    lines, line = lines_of(stream, layout.line_end), 1
    offset = stream.offset
    for _ in range(layout.header_lines):
        offset += len(next(lines, b""))
        line += 1
    run: list[bytes] = []
    first, held = line, 0

    def flushed() -> Cuts:
        nonlocal offset, first, held
        if run:
            yield Cut(b"".join(run), offset, first, first, line, stream.position_bytes, held)
        offset, first, held = offset + held, line, 0
        run.clear()

    for taken in records(lines):
        if isinstance(head := taken[0], LongLine):
            yield from flushed()
            size = head.size_bytes
            yield Cut(bytes(head), offset, line, line, line + 1, stream.position_bytes, size, too_long(size))
            offset, line = offset + size, line + 1
            first = line
            continue
        run.extend(taken)
        held += sum(map(len, taken))
        line += len(taken)
        if held >= target_bytes:
            yield from flushed()
    yield from flushed()
