"""The rows of a source, one after another, or cut into chunks that several processes read at once.

Both give the same rows with the same numbers. A row's number is its line (or place in a table or list) in its
file; in a folder the numbers go on from file to file, and what is set aside names its own file and line.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Self

from engine.data.files.chunk import Chunk, Cut, Fault, Layout, Piece, chunk_of, digest_of
from engine.data.files.faults import excerpt_of
from engine.data.files.formats import parse
from engine.data.files.limits import CHUNK_BYTES, READER_CHUNK_BYTES
from engine.data.files.members import MemberCutter, members_of
from engine.data.files.opening import open_regular, unreadable
from engine.data.files.stored import changed
from engine.data.rows import RejectedRow, Row, Unit, shown
from engine.data.source import Source
from profiles.problem import Problem, printable


class Pieces(Iterator[tuple[Piece, Cut]]):
    """The pieces of all files of a source, in order, and what is known about them so far."""

    def __init__(self, source: Source, target_bytes: int, *, with_digests: bool):
        self._source = source
        self._target_bytes = target_bytes
        self._with_digests = with_digests
        self._members = members_of(source)
        self._waiting = iter(self._members.names)
        self._digest = hashlib.sha256()
        self._notes: Counter[str] = Counter()
        self._done_bytes = 0
        self._file_sha256 = ""
        self.size_bytes = self._members.size_bytes
        self.starts: list[tuple[int, str]] = []
        """Numbers used before each file, and its name."""
        self.blank_lines = 0
        self._member = self._open_next(0)
        assert self._member is not None
        self.layout: Layout = self._member.layout

    def __next__(self) -> tuple[Piece, Cut]:
        while self._member is not None:
            if (pair := next(self._member, None)) is not None:
                return pair
            member, self._member = self._member, None
            self._file_sha256 = member.sha256
            self._notes.update(member.notes)
            self._digest.update(f"{member.sha256}  {member.name}\n".encode(errors="surrogateescape"))
            self._done_bytes += member.stored.size_bytes
            self._member = self._open_next(member.lines_before + member.end_line - 1)
        raise StopIteration

    @property
    def position_bytes(self) -> int:
        """Of the files as stored, read so far."""
        return self._done_bytes + (self._member.stored.position_bytes if self._member else 0)

    @property
    def done_bytes(self) -> int:
        """Of the files that were read to their end."""
        return self._done_bytes

    @property
    def sha256(self) -> str:
        """Of the file as stored; of a folder, over the hashes and names of its files as sha256sum lists them."""
        return self._file_sha256 if self._members.names == ("",) else self._digest.hexdigest()

    def notes(self) -> tuple[str, ...]:
        files = len(self._members.names)
        seen = self._notes + Counter(self._member.notes if self._member else ())
        found = [f"{note} ({count:,} of {files:,} files)" if files > 1 else note for note, count in seen.items()]
        blank = [f"blank lines passed over: {self.blank_lines:,}"] if self.blank_lines else []
        return (*self._members.notes, *found, *blank)

    def close(self) -> None:
        if self._member is not None:
            self._member.close()
            self._member = None

    def _open_next(self, lines_before: int) -> MemberCutter | None:
        name = next(self._waiting, None)
        if name is None:
            return None
        member = MemberCutter(self._source, name, lines_before, self._target_bytes, with_digests=self._with_digests)
        self.starts.append((lines_before, name))
        return member


class _Opened:
    """What reading and cutting have in common: a context manager that knows what it reads."""

    _pieces: Pieces

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pieces.close()

    @property
    def format(self) -> str:
        """The format found; in a folder, its first file's."""
        return self._pieces.layout.format

    @property
    def unit(self) -> Unit:
        return self._pieces.layout.unit

    @property
    def sha256(self) -> str:
        """Of the file as stored, in hexadecimal, once all was read; of a folder, of its names and hashes."""
        return self._pieces.sha256

    def notes(self) -> tuple[str, ...]:
        """What is worth saying about how the source was read, such as a guessed encoding; blank lines so far, which
        only reading counts."""
        return self._pieces.notes()


class RowReader(_Opened, Iterator["Row | RejectedRow"]):
    """Iterates over a source's rows, and knows how far it is.

    Making one opens the source and raises Problem for what cannot be read. Iterating raises Problem when there
    are no rows, when a file changes while it is read, and when the disk fails. Blank lines are no rows.
    """

    def __init__(self, source: Source):
        self.source = source
        self.path = source.path
        self._pieces = Pieces(source, READER_CHUNK_BYTES, with_digests=False)
        self.size_bytes = self._pieces.size_bytes
        self.position_bytes = 0
        self.columns: tuple[str, ...] = self._pieces.layout.header
        """Of the first row; known from the start where the file has a header."""
        self._rows: Generator[Row | RejectedRow, None, None] = self._read()

    def __next__(self) -> Row | RejectedRow:
        return next(self._rows)

    def close(self) -> None:
        super().close()
        self._rows.close()

    def rejection(self, row: Row, reason: str) -> RejectedRow:
        """`row`, which was read here, set aside by a later stage for `reason`."""
        starts = self._pieces.starts
        lines_before, name = starts[bisect_left(starts, (row.line, "")) - 1]
        path = self.path / name if name else self.path
        return RejectedRow(str(path), row.line - lines_before, reason, printable(row.value), self.unit)

    def _read(self) -> Generator[Row | RejectedRow, None, None]:
        rows = 0
        for piece, cut in self._pieces:
            whole_bytes, done_bytes = max(1, len(cut.data)), self._pieces.done_bytes
            if piece.layout.is_plain:
                before, after = done_bytes + cut.offset, done_bytes + cut.offset + cut.size_bytes
            else:
                before, after = self.position_bytes, done_bytes + cut.position_bytes
            for used_bytes, found in _rows_of(self.source, piece, bytes(cut.data)):
                self.position_bytes = before + (after - before) * used_bytes // whole_bytes
                if found is None:
                    self._pieces.blank_lines += 1
                    continue
                rows += 1
                if not self.columns and isinstance(found, Row):
                    self.columns = tuple(found.value)
                yield found
            self.position_bytes = after
        self.position_bytes = self.size_bytes
        if not rows:
            raise without_rows(self.path, self._pieces.blank_lines)


class Chunks(_Opened, Iterator[Chunk]):
    """Cuts a source into chunks in one pass that also hashes it. Raises Problem as RowReader does, except that
    chunks may turn out to hold no rows at all."""

    def __init__(self, source: Source, target_bytes: int):
        self.path = source.path
        self._pieces = Pieces(source, target_bytes, with_digests=True)
        self._target_bytes = target_bytes
        self._ordinal = 0
        self.size_bytes = self._pieces.size_bytes

    def __next__(self) -> Chunk:
        pieces: list[Piece] = []
        size_bytes = 0
        for piece, _ in self._pieces:
            pieces.append(piece)
            size_bytes += piece.size_bytes
            # Of a folder's small files many go into one chunk.
            if size_bytes >= self._target_bytes or not piece.file:
                break
        if not pieces:
            raise StopIteration
        self._ordinal += 1
        return chunk_of(self._ordinal - 1, pieces)

    @property
    def position_bytes(self) -> int:
        """Of the files as stored, read so far."""
        return self._pieces.position_bytes

    @property
    def columns(self) -> tuple[str, ...]:
        """Where the file itself names them; else empty."""
        return self._pieces.layout.header


def open_rows(source: Source) -> RowReader:
    """The rows of a file or folder, in order. Raises Problem as RowReader says."""
    return RowReader(source)


def chunks_of(source: Source, target_bytes: int = CHUNK_BYTES) -> Chunks:
    """A file or folder cut at ends of records; the same bytes are always cut in the same places."""
    return Chunks(source, target_bytes)


def read_chunk(source: Source, chunk: Chunk) -> Iterator[Row | RejectedRow]:
    """The rows of a chunk, numbered as open_rows numbers them. Raises Problem when the file was changed since."""
    for piece in chunk.pieces:
        for _, found in _rows_of(source, piece, _bytes_of(source, piece)):
            if found is not None:
                yield found


def without_rows(path: Path, blank_lines: int) -> Problem:
    """The Problem for a source in which there is not one row."""
    blank = f" ({blank_lines:,} blank line{'' if blank_lines == 1 else 's'})" if blank_lines else ""
    return Problem(shown(path), f"has no rows{blank}", "Give a file with at least one row.")


def _rows_of(source: Source, piece: Piece, data: bytes) -> Iterator[tuple[int, Row | RejectedRow | None]]:
    """Each record with the bytes of `data` used up after it; None for a blank line."""
    if piece.fault:
        yield len(data), piece.reject(source, piece.first_line, Fault(piece.fault, excerpt_of(data)))
        return
    lines_before = piece.lines_before
    for used_bytes, number, value in parse(data, piece.layout, piece.first_line, piece.text_line):
        if value is None:
            yield used_bytes, None
        elif isinstance(value, Fault):
            yield used_bytes, piece.reject(source, number, value)
        else:
            yield used_bytes, Row(lines_before + number, value)


def _bytes_of(source: Source, piece: Piece) -> bytes:
    if piece.payload is not None:
        return piece.payload
    path = piece.path_in(source)
    try:
        with open_regular(path) as file:
            data = os.pread(file.fileno(), piece.size_bytes, piece.offset)
    except OSError as error:
        raise unreadable(shown(path), error) from None
    if digest_of(data) != piece.digest:
        raise changed(path, "other bytes stand where its rows stood")
    return data
