"""Rows from a JSONL file, one at a time, in bounded memory.

A line ends at LF and nowhere else: U+2028, U+0085 and a lone CR are part of the line, and a CR before the
LF is dropped. Lines count from 1, blank ones included. A fault of the whole file raises Problem; a fault of
one row gives a RejectedRow and the reading goes on, so that every line is a row, a rejected row or blank.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from engine.data.json_faults import NotAnObject, parse_object
from engine.data.rows import RejectedRow, Row, shown
from engine.data.sniff import HEAD_BYTES, UTF8_BOM, open_regular, refuse_other_formats, unreadable
from profiles.problem import Problem, printable

# The longest line that is parsed. Longer ones are passed over in pieces: a row of this size is already
# some sixteen million tokens, and a parser may take twenty times a line's size in memory.
MAX_LINE_BYTES = 64 * 2**20
_PIECE_BYTES = 2**20


class RowReader(Iterator["Row | RejectedRow"]):
    """Iterates over a file's rows, and knows how far it is.

    Making one opens the file and raises Problem for what cannot be JSONL. Iterating raises Problem when the
    file has no rows, when it changes while it is read, and when the disk fails.
    """

    def __init__(self, path: Path):
        self.path = path
        self.position_bytes = 0
        self.blank_lines = 0
        self.has_byte_order_mark = False
        self._lines = 0
        self._rows = 0
        self._digest = hashlib.sha256()
        self._file = open_regular(path)
        try:
            self._opened_as = os.fstat(self._file.fileno())
            self.size_bytes = self._opened_as.st_size
            head = self._file.read(HEAD_BYTES)
            refuse_other_formats(path, head, self.size_bytes)
            self.has_byte_order_mark = head.startswith(UTF8_BOM)
            self._file.seek(0)
        except OSError as error:
            self.close()
            raise unreadable(shown(path), error) from None
        except Problem:
            self.close()
            raise

    def __next__(self) -> Row | RejectedRow:
        if self._file.closed:
            raise StopIteration
        try:
            while line := self._next_line():
                self._lines += 1
                if self._lines == 1 and self.has_byte_order_mark:
                    line = line.removeprefix(UTF8_BOM)
                if row := self._row(line):
                    self._rows += 1
                    return row
                self.blank_lines += 1
            self._refuse_if_changed()
        except OSError as error:
            self.close()
            raise unreadable(shown(self.path), error) from None
        self.close()
        if not self._rows:
            blank = f"{self.blank_lines:,} blank line{'' if self.blank_lines == 1 else 's'}"
            raise Problem(shown(self.path), f"has no rows ({blank})", "Give a file with at least one row.")
        raise StopIteration

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes read so far, in hexadecimal; of the whole file once all rows were read."""
        return self._digest.hexdigest()

    def rejection(self, row: Row, reason: str) -> RejectedRow:
        """`row` set aside by a later stage, for `reason`."""
        return RejectedRow(str(self.path), row.line, reason, printable(row.value))

    def _next_line(self) -> bytes:
        line = self._file.readline(MAX_LINE_BYTES + 1)
        self._count(line)
        return line

    def _count(self, data: bytes) -> None:
        self.position_bytes += len(data)
        self._digest.update(data)

    def _row(self, line: bytes) -> Row | RejectedRow | None:
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            skipped_bytes = len(line) + self._skip_to_line_end()
            return self._rejected(line, f"has {skipped_bytes:,} bytes; a row may have {MAX_LINE_BYTES:,}")
        is_unfinished = not line.endswith(b"\n")
        line = line.rstrip(b"\r\n")
        if not line.strip():
            return None
        if b"\x00" in line:
            return self._rejected(line, f"has the binary byte 0x00 at byte {line.index(0) + 1:,}")
        try:
            return Row(self._lines, parse_object(line.decode(), is_unfinished))
        except UnicodeDecodeError as error:
            return self._rejected(line, _explain_encoding(error, is_unfinished))
        except NotAnObject as reason:
            return self._rejected(line, str(reason))

    def _skip_to_line_end(self) -> int:
        skipped_bytes = 0
        while piece := self._file.readline(_PIECE_BYTES):
            self._count(piece)
            skipped_bytes += len(piece)
            if piece.endswith(b"\n"):
                break
        return skipped_bytes

    def _rejected(self, line: bytes, reason: str) -> RejectedRow:
        excerpt = printable(line[:400].decode(errors="replace"))
        return RejectedRow(str(self.path), self._lines, reason, excerpt)

    def _refuse_if_changed(self) -> None:
        now, then = os.fstat(self._file.fileno()), self._opened_as
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise Problem(
                shown(self.path),
                f"changed while it was read (from {then.st_size:,} to {now.st_size:,} bytes)",
                "Wait until it is written, then start again.",
            )


def read_rows(path: Path) -> RowReader:
    """An iterator over the rows of the JSONL file at `path`. Raises Problem as RowReader says."""
    return RowReader(path)


def _explain_encoding(error: UnicodeDecodeError, is_unfinished: bool) -> str:
    line: bytes = error.object
    if is_unfinished and error.end == len(line) and error.reason == "unexpected end of data":
        return "is cut off; the file may still be copying"
    byte = line[error.start]
    guess = bytes([byte]).decode("cp1252", errors="replace")
    meant = f" (in Windows-1252 it would be {guess})" if guess.isprintable() and guess != "\ufffd" else ""
    return f"is not UTF-8: byte 0x{byte:02x} at byte {error.start + 1:,}{meant}; save the file as UTF-8"
