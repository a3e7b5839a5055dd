"""CSV and its relatives: one record a row, numbered by the line at which it begins.

A record with a quote that is not closed, or that goes on behind its quote, is set aside as the one line it begins
with, and the lines after it are read anew: a stray quote costs one row and not the rest of the file. (What was passed
over in search of the closing quote holds no other that opens, so no line is searched more than twice.)
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator

from engine.data.files import limits
from engine.data.files.chunk import Cuts, Fault, Layout, Parsed
from engine.data.files.csv_dialect import unescaped
from engine.data.files.faults import binary_byte, excerpt_of, not_encoded, too_long
from engine.data.files.line_runs import cut_lines
from engine.data.files.text_lines import LongLine, lines_of
from engine.data.files.text_stream import TextStream

# The parser's own limit on a field is 128 KiB, for the whole process; the limit on a record is kept here.
csv.field_size_limit(2 * limits.MAX_ROW_BYTES)

# One sentence for all of these faults: which of them comes first depends on where a run of records ends.
_OPEN_QUOTE = (
    "has a quote that is not closed where its field ends; inside a quoted field a quote is written twice, "
    f"and a row may have {limits.MAX_ROW_BYTES:,} bytes"
)


def cut(stream: TextStream, layout: Layout, target_bytes: int) -> Cuts:
    """Runs of whole records, the header left out."""
    return cut_lines(stream, layout, target_bytes, lambda lines: (taken for taken, _ in Records(lines, layout)))


def parse(data: bytes, layout: Layout, first_line: int, text_line: int) -> Iterator[Parsed]:
    used, number = 0, first_line
    width = len(layout.header)
    for taken, found in Records(lines_of(io.BytesIO(data), layout.line_end), layout):
        used += sum(map(len, taken))
        if isinstance(found, str):
            yield used, number, Fault(found, excerpt_of(taken[0]))
        elif not found:
            yield used, number, None
        elif len(found) != width:
            fields = f"{len(found):,} field{'' if len(found) == 1 else 's'}"
            yield used, number, Fault(f"has {fields} where there are {width:,} columns", excerpt_of(taken[0]))
        else:
            yield used, number, dict(zip(layout.header, found, strict=True))
        number += len(taken)


class Records(Iterator[tuple[list[bytes], "list[str] | str"]]):
    """Each record's lines, and its fields or the reason why it has none; no fields for a blank line."""

    def __init__(self, lines: Iterator[bytes], layout: Layout):
        self._lines = _Lines(lines, layout)
        self._reader = csv.reader(
            self._lines, delimiter=layout.delimiter, quotechar=layout.quote, doublequote=True, strict=True
        )
        self._encoding = layout.encoding

    def __next__(self) -> tuple[list[bytes], list[str] | str]:
        lines = self._lines
        lines.taken, lines.taken_bytes, lines.fault = [], 0, None
        try:
            fields = next(self._reader)
        except csv.Error as error:
            is_return = len(lines.taken) == 1 and str(error).startswith("new-line character")
            lines.give_back()
            return lines.taken, "has a carriage return outside quotes" if is_return else _OPEN_QUOTE
        except _TooMuch:
            if len(lines.taken) == 1 and isinstance(lines.taken[0], LongLine):
                return lines.taken, too_long(lines.taken[0].size_bytes)
            lines.give_back()
            return lines.taken, _OPEN_QUOTE
        if lines.fault is not None:
            return lines.taken, not_encoded(lines.fault, self._encoding)
        if len(fields) == 1 and not fields[0].strip() and len(lines.taken) == 1 and not lines.taken[0].strip():
            return lines.taken, []
        if any("\x00" in field for field in fields):
            return lines.taken, binary_byte(b"".join(lines.taken))
        return lines.taken, fields


class _TooMuch(Exception):
    """A record that has more bytes than a row may have."""


class _Lines(Iterator[str]):
    """Lines as the parser asks for them, with those of the record that it is at kept to be given back."""

    def __init__(self, lines: Iterator[bytes], layout: Layout):
        self._source = lines
        self._has_backslashed_quotes = layout.has_backslashed_quotes
        self._given_back: deque[bytes] = deque()
        self.taken: list[bytes] = []
        self.taken_bytes = 0
        self.fault: UnicodeDecodeError | None = None

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else next(self._source)
        if isinstance(line, LongLine) and self.taken:
            self._given_back.appendleft(line)
            raise _TooMuch
        self.taken.append(line)
        self.taken_bytes += len(line)
        if isinstance(line, LongLine) or self.taken_bytes > limits.MAX_ROW_BYTES:
            raise _TooMuch
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            self.fault = self.fault or error
            text = line.decode(errors="replace")
        return unescaped(text) if self._has_backslashed_quotes else text

    def give_back(self) -> None:
        """All lines of the record but its first."""
        self._given_back.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]
