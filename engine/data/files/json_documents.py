"""JSON that is no JSONL: a list of objects, one within a document, or objects one after another over many lines.

Rows are numbered by their place in the list, since several may stand on one line; faults also tell the line.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.data.files import limits
from engine.data.files.chunk import Cut, Cuts, Fault, Layout, Parsed
from engine.data.files.faults import binary_byte, excerpt_of, not_encoded, too_long
from engine.data.files.json_faults import NotAnObject, parse_object
from engine.data.files.json_scanner import Scanner
from engine.data.files.text_stream import TextStream
from engine.data.rows import shown
from profiles.problem import Problem, printable

_MOST_LINES_BETWEEN = 10_000
_UNCLOSED = "is missing: the file ends before its list does; it may still be copying"


def cut(stream: TextStream, layout: Layout, target_bytes: int) -> Cuts:
    scanner = Scanner(stream, stream.offset)
    if layout.records and not enter(scanner, layout.records):
        raise no_list(stream.path, layout.records)
    run, is_complete = _Run(stream), True
    depth = 1 if layout.records else 0
    while byte := scanner.peek():
        if byte == b",":
            scanner.take()
        elif byte == b"[" and not depth:
            scanner.take()
            yield from run.flushed()
            depth = 1
        elif byte == b"]" and depth:
            scanner.take()
            depth = 0
            yield from run.flushed()
            if layout.records:
                return
        else:
            offset, line = scanner.offset, scanner.line
            record, size, is_complete = scanner.value()
            yield from run.add(offset, line, record, size, scanner.line)
            if run.held_bytes >= target_bytes:
                yield from run.flushed()
    yield from run.flushed()
    if depth and is_complete:
        yield Cut(b"", scanner.offset, run.number, scanner.line, run.number + 1, stream.position_bytes, 0, _UNCLOSED)


def parse(data: bytes, layout: Layout, first_line: int, text_line: int) -> Iterator[Parsed]:
    scanner, number = Scanner(io.BytesIO(data), 0, text_line), first_line
    while byte := scanner.peek():
        if byte == b",":
            scanner.take()
            continue
        line = scanner.line
        record, _, is_complete = scanner.value()
        yield scanner.offset, number, _value(record, line, not is_complete, layout)
        number += 1


def enter(scanner: Scanner, keys: tuple[str, ...]) -> bool:
    """Go into the list that `keys` lead to. False when they do not lead to one."""
    for key in keys:
        if scanner.peek() != b"{":
            return False
        scanner.take()
        while (found := next_key(scanner)) != key:
            if found is None:
                return False
            scanner.value()
    if scanner.peek() != b"[":
        return False
    scanner.take()
    return True


def no_list(path: Path, keys: tuple[str, ...]) -> Problem:
    return Problem(shown(path), f"has no list at {printable('.'.join(keys))}", "Correct the source's `records`.")


def next_key(scanner: Scanner) -> str | None:
    """The next key of the object that the place is in, going to its value; None at the object's end or a fault."""
    if scanner.peek() == b",":
        scanner.take()
    if scanner.peek() != b'"':
        return None
    text, _, is_complete = scanner.value()
    if not is_complete or scanner.peek() != b":":
        return None
    scanner.take()
    scanner.peek()
    try:
        key = json.loads(text)
    except ValueError:
        return None
    return key if isinstance(key, str) else None


class _Run:
    """The records since the last cut."""

    def __init__(self, stream: TextStream):
        self._stream = stream
        self._parts: list[bytes] = []
        self._offset = self._line = self._first = self._end_line = 0
        self.number = 1
        """Of the record that comes next."""
        self.held_bytes = 0

    def add(self, offset: int, line: int, record: bytes, size: int, end_line: int) -> Cuts:
        if size > limits.MAX_ROW_BYTES:
            yield from self.flushed()
            after = self.number + 1
            yield Cut(record, offset, self.number, line, after, self._stream.position_bytes, size, too_long(size))
            self.number = after
            return
        if line - self._end_line > _MOST_LINES_BETWEEN:
            yield from self.flushed()
        if not self._parts:
            self._offset, self._line, self._first = offset, line, self.number
        else:
            # White space between records is not kept, but each still begins at its line.
            self._parts.append(b"," + b"\n" * (line - self._end_line))
        self._parts.append(record)
        self.held_bytes += size
        self.number += 1
        self._end_line = end_line

    def flushed(self) -> Cuts:
        if self._parts:
            data = b"".join(self._parts)
            place = self._offset, self._first, self._line, self.number, self._stream.position_bytes
            yield Cut(data, *place, size_bytes=len(data))
            self._parts, self.held_bytes = [], 0


def _value(record: bytes, line: int, is_unfinished: bool, layout: Layout) -> dict[str, Any] | Fault:
    if b"\x00" in record:
        return Fault(binary_byte(record), excerpt_of(record))
    try:
        return parse_object(record.decode(), is_unfinished, line)
    except UnicodeDecodeError as error:
        return Fault(not_encoded(error, layout.encoding, is_unfinished), excerpt_of(record))
    except NotAnObject as reason:
        return Fault(str(reason), excerpt_of(record))
