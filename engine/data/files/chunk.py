"""What a file is cut into: runs of whole records that any process can read by themselves, in any order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from engine.data.rows import RejectedRow, Row, Unit
from engine.data.source import Source
from profiles.problem import printable

FoundFormat = Literal["jsonl", "json", "csv", "parquet", "arrow", "text", "markdown"]

UNITS: dict[FoundFormat, Unit] = {
    "jsonl": "line",
    "json": "row",
    "csv": "line",
    "parquet": "row",
    "arrow": "row",
    "text": "line",
    "markdown": "line",
}
"""What the rows of a format are counted by. A row of text begins at a line; several JSON objects may share one."""


@dataclass(frozen=True, slots=True)
class Layout:
    """All that decides how the bytes of a file become rows, found out once at its beginning."""

    format: FoundFormat
    packing: str = ""
    """gzip, zstd, bzip2 or xz; "" for none."""
    encoding: str = "utf-8"
    """What its text is encoded in. Chunks that carry their bytes carry them in UTF-8."""
    skipped_bytes: int = 0
    """Of a UTF-8 byte-order mark in front."""
    delimiter: str = ""
    quote: str = ""
    """csv: what encloses a field; "" for nothing."""
    has_backslashed_quotes: bool = False
    """csv: a quote within a field is written with a backslash, not twice."""
    header: tuple[str, ...] = ()
    """csv: the columns' names."""
    header_lines: int = 0
    """csv: lines in front of the first record."""
    line_end: str = "\n"
    """csv, text, markdown: a carriage return alone where the file has no other line ends."""
    records: tuple[str, ...] = ()
    """json: the keys that lead to the list of rows; without any, the rows are the values that the document consists
    of, and what lists among them hold."""

    @property
    def is_plain(self) -> bool:
        """Whether a run of rows can be read straight from the file, by its place."""
        is_by_place = self.format in ("jsonl", "csv", "text", "markdown")
        return is_by_place and not self.packing and self.encoding == "utf-8"

    @property
    def unit(self) -> Unit:
        return UNITS[self.format]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record gives no row; `reason` completes the sentence "line 7 ..."."""

    reason: str
    excerpt: str


Parsed = tuple[int, int, "dict[str, Any] | Fault | None"]
"""Bytes of the run used up, the number of a record in its file, and what it holds; None for a blank line."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of whole records of one file."""

    file: str
    """Path within the folder that is the source; "" where the source is a file."""
    layout: Layout
    first_line: int
    """Number of its first record, from 1, in the file's unit."""
    lines_before: int
    """Numbers used by the files before this one in the folder."""
    text_line: int
    """Line of the file's text at which it begins, from 1."""
    offset: int
    """Where it begins, in bytes of the file's text."""
    size_bytes: int
    digest: str
    """BLAKE2b of its bytes, in hexadecimal; "" where it is parsed at once and needs none."""
    payload: bytes | None = None
    """Its bytes, where they cannot be read from the file by their place; of one record with a fault, its beginning."""
    fault: str = ""
    """Why this one record is no row, where that was seen in cutting."""

    def path_in(self, source: Source) -> Path:
        return source.path / self.file if self.file else source.path

    def row(self, number: int, value: dict[str, Any]) -> Row:
        return Row(self.lines_before + number, value)

    def reject(self, source: Source, number: int, fault: Fault) -> RejectedRow:
        return RejectedRow(str(self.path_in(source)), number, fault.reason, fault.excerpt, self.layout.unit)


@dataclass(frozen=True, slots=True)
class Chunk:
    """About as many bytes of whole records as were asked for; picklable."""

    ordinal: int
    """From 0."""
    first_line: int
    """Row.line of its first row, or of what stands there instead of one."""
    key: str
    """BLAKE2b, in hexadecimal, of its bytes and of all that decides how they are read: not of where they stand,
    so that it stays the same when the file grows."""
    size_bytes: int
    pieces: tuple[Piece, ...]

    def rejection(self, source: Source, row: Row, reason: str) -> RejectedRow:
        """`row`, which came from this chunk, set aside by a later stage for `reason`."""
        piece = next(each for each in reversed(self.pieces) if row.line > each.lines_before)
        return piece.reject(source, row.line - piece.lines_before, Fault(reason, printable(row.value)))


def chunk_of(ordinal: int, pieces: list[Piece]) -> Chunk:
    digest = blake2b(digest_size=20)
    for piece in pieces:
        # A JSON record's faults name their line of text, so there the place matters too.
        place = piece.text_line if piece.layout.format == "json" else 0
        digest.update(f"{piece.layout}|{place}|{piece.fault}|{piece.digest}\n".encode())
    first = pieces[0]
    size_bytes = sum(piece.size_bytes for piece in pieces)
    return Chunk(ordinal, first.lines_before + first.first_line, digest.hexdigest(), size_bytes, tuple(pieces))


def digest_of(data: bytes | memoryview) -> str:
    return blake2b(data, digest_size=20).hexdigest()


@dataclass(frozen=True, slots=True)
class Cut:
    """A run of whole records as a format's cutter hands it on."""

    data: bytes | memoryview
    """Its bytes; of a record with a fault, its first ones. A view is valid until the next run is asked for."""
    offset: int
    """Where it begins in the file's text, in bytes."""
    first_line: int
    text_line: int
    end_line: int
    """Number of the record that comes after it."""
    position_bytes: int
    """Of the stored file read when it was complete."""
    size_bytes: int
    """Of the text that it stands for."""
    fault: str = ""
    """Why it, as one record, is no row."""


Cuts = Iterator[Cut]
