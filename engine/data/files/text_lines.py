"""The lines of a text, one at a time, each of bounded size."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.files import limits
from engine.data.files.text_stream import Readable


class LongLine(bytes):
    """The beginning of a line that is too long to be held; `size_bytes` is what it had, with its line end."""

    size_bytes: int


def lines_of(stream: Readable, line_end: str = "\n") -> Iterator[bytes]:
    """Each line with its line end, which the last may lack; a LongLine where there are more than a row's bytes."""
    end_mark, rest = line_end.encode(), b""
    while block := stream.read(limits.BLOCK_BYTES):
        block = rest + block
        start = 0
        while end := block.find(end_mark, start) + 1:
            yield block[start:end] if end - start <= limits.MAX_ROW_BYTES + 1 else _cut_short(block[start:end])
            start = end
        rest = block[start:]
        if len(rest) > limits.MAX_ROW_BYTES:
            line, rest = _long_line(stream, rest, end_mark)
            yield line
    if rest:
        yield rest


def _cut_short(line: bytes) -> LongLine:
    short = LongLine(line[: limits.EXCERPT_BYTES])
    short.size_bytes = len(line)
    return short


def _long_line(stream: Readable, begun: bytes, end_mark: bytes) -> tuple[LongLine, bytes]:
    """The long line that `begun` is the beginning of, and what was read behind it."""
    line, rest = _cut_short(begun), b""
    while block := stream.read(limits.BLOCK_BYTES):
        end = block.find(end_mark) + 1
        line.size_bytes += end or len(block)
        if end:
            rest = block[end:]
            break
    return line, rest
