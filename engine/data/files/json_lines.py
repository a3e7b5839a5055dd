"""JSONL: one object a line.

A line ends at LF and nowhere else: U+2028, U+0085 and a lone CR are part of the line, and a CR before the
LF is dropped. Lines count from 1, blank ones included. A fault of one line gives a Fault and the reading goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.data.files import limits
from engine.data.files.chunk import Cut, Cuts, Fault, Layout, Parsed
from engine.data.files.faults import binary_byte, excerpt_of, not_encoded, too_long
from engine.data.files.json_faults import NotAnObject, parse_object
from engine.data.files.text_stream import TextStream

_LINE_END = ord("\n")
# Read at once in search of a line end: most lines are shorter, and what lies behind it has to be moved.
_LOOKAHEAD_BYTES = 2**16


def cut(stream: TextStream, layout: Layout, target_bytes: int) -> Cuts:
    """Runs of lines, each ending at the first line end at or past `target_bytes`.

    All are views of one buffer, each valid until the next is asked for: fresh memory for each would halve the speed.
    """
    most_bytes = target_bytes + limits.MAX_ROW_BYTES + 2 * _LOOKAHEAD_BYTES
    buffer = bytearray(min(most_bytes, stream.most_bytes + 1))
    view = memoryview(buffer)
    held, line, offset = 0, 1, stream.offset
    while True:
        while held < target_bytes and (got := stream.read_into(view[held:target_bytes])):
            held += got
        if not held:
            return
        last_start = buffer.rfind(b"\n", 0, min(held, target_bytes - 1)) + 1
        end = buffer.find(b"\n", max(0, target_bytes - 1), held) + 1
        while not end and held - last_start <= limits.MAX_ROW_BYTES:
            got = stream.read_into(view[held : held + _LOOKAHEAD_BYTES])
            if not got:
                break
            end = buffer.find(b"\n", held, held + got) + 1
            held += got
        is_too_long = (end - 1 if end else held) - last_start > limits.MAX_ROW_BYTES
        end = last_start if is_too_long else end or held
        if end:
            lines = buffer.count(b"\n", 0, end) + (buffer[end - 1] != _LINE_END)
            yield Cut(view[:end], offset, line, line, line + lines, stream.position_bytes, size_bytes=end)
            offset, line, held = offset + end, line + lines, held - end
            stream.wait()
            view[:held] = view[end : end + held]
        if is_too_long:
            head = bytes(view[: limits.EXCERPT_BYTES])
            size, held = _skip_line(stream, buffer, held)
            yield Cut(head, offset, line, line, line + 1, stream.position_bytes, size, too_long(size))
            offset, line = offset + size, line + 1


def _skip_line(stream: TextStream, buffer: bytearray, held: int) -> tuple[int, int]:
    """Remove the line that the first `held` bytes begin with, reading on to its end. Its size in bytes, with the line
    end, and how many bytes are held then."""
    skipped, view = 0, memoryview(buffer)
    while not (end := buffer.find(b"\n", 0, held) + 1):
        skipped += held
        stream.wait()
        held = stream.read_into(view[:_LOOKAHEAD_BYTES])
        if not held:
            return skipped, 0
    stream.wait()
    view[: held - end] = view[end:held]
    return skipped + end, held - end


def parse(data: bytes, layout: Layout, first_line: int, text_line: int) -> Iterator[Parsed]:
    position, number = 0, first_line
    while position < len(data):
        end = data.find(b"\n", position) + 1 or len(data)
        yield end, number, _value(data[position:end], layout)
        position, number = end, number + 1


def _value(line: bytes, layout: Layout) -> dict[str, Any] | Fault | None:
    is_unfinished = not line.endswith(b"\n")
    if len(line) - (not is_unfinished) > limits.MAX_ROW_BYTES:
        return Fault(too_long(len(line)), excerpt_of(line))
    line = line.rstrip(b"\r\n")
    if not line or line.isspace():
        return None
    if b"\x00" in line:
        return Fault(binary_byte(line), excerpt_of(line))
    try:
        return parse_object(line.decode(), is_unfinished)
    except UnicodeDecodeError as error:
        return Fault(not_encoded(error, layout.encoding, is_unfinished), excerpt_of(line))
    except NotAnObject as reason:
        return Fault(str(reason), excerpt_of(line))
