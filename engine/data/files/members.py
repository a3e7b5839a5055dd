"""The files that a source consists of, and each of them cut into pieces."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from engine.data.files.chunk import Cut, Piece, digest_of
from engine.data.files.folders import Members, files_in
from engine.data.files.formats import cuts_of
from engine.data.files.layouts import layout_of
from engine.data.files.limits import BLOCK_BYTES
from engine.data.files.opening import mode_of
from engine.data.files.stored import StoredFile
from engine.data.source import Source


def members_of(source: Source) -> Members:
    """Raises Problem when the source is not there, may not be read, or is a folder without data files."""
    if stat.S_ISDIR(mode_of(source.path)):
        return files_in(source)
    return Members(("",), source.path.stat().st_size)


class MemberCutter(Iterator[tuple[Piece, Cut]]):
    """One file's pieces, from one pass over it. Raises Problem for what is wrong with the whole file."""

    def __init__(self, source: Source, name: str, lines_before: int, target_bytes: int, *, with_digests: bool):
        self.name = name
        self._with_digests = with_digests
        self.path: Path = source.path / name if name else source.path
        self.lines_before = lines_before
        self.end_line = 1
        self.stored = StoredFile(self.path)
        try:
            self.layout, notes = layout_of(self.stored, source)
        except BaseException:
            self.stored.close()
            raise
        self.notes = list(notes)
        """What is worth saying about how it is read; more may come while it is cut."""
        self._cuts = cuts_of(self.stored, self.layout, target_bytes, self.notes)

    def __next__(self) -> tuple[Piece, Cut]:
        cut = next(self._cuts, None)
        if cut is None:
            self._finish()
            raise StopIteration
        self.end_line = cut.end_line
        keeps_bytes = bool(cut.fault) or not self.layout.is_plain
        return Piece(
            file=self.name,
            layout=self.layout,
            first_line=cut.first_line,
            lines_before=self.lines_before,
            text_line=cut.text_line,
            offset=cut.offset,
            size_bytes=cut.size_bytes,
            digest=digest_of(cut.data) if self._with_digests else "",
            payload=bytes(cut.data) if keeps_bytes else None,
            fault=cut.fault,
        ), cut

    def _finish(self) -> None:
        """Read what the records left over, since the hash is of the whole file."""
        if self.stored.is_closed:
            return
        while self.stored.read(BLOCK_BYTES):
            pass
        self.stored.refuse_if_changed()
        self.sha256 = self.stored.sha256
        self.close()

    def close(self) -> None:
        self.stored.close()
