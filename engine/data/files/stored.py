"""A file's bytes as stored, read once from front to end, hashed on the way and watched for change."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from engine.data.files.opening import open_regular, unreadable
from engine.data.rows import shown
from profiles.problem import Problem

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

# Hashing a smaller block in another thread takes longer to arrange than to do.
_HASHED_ASIDE_BYTES = 2**18


class StoredFile:
    """Opened for one pass. Raises Problem for what cannot be opened or read, or changes meanwhile."""

    def __init__(self, path: Path):
        self.path = path
        self.position_bytes = 0
        self._file = open_regular(path)
        self._digest = hashlib.sha256()
        self._aside: ThreadPoolExecutor | None = None
        self._hashing: Future[None] | None = None
        self._opened_as = os.fstat(self._file.fileno())
        self.size_bytes = self._opened_as.st_size

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; b"" at the end."""
        try:
            data = self._file.read(size)
        except OSError as error:
            raise unreadable(shown(self.path), error) from None
        self._take(data)
        return data

    def read_into(self, view: memoryview) -> int:
        """Fill `view` with the next bytes; how many there were. Until `wait` returns they may not be changed."""
        try:
            size = self._file.readinto(view) or 0
        except OSError as error:
            raise unreadable(shown(self.path), error) from None
        self._take(view[:size])
        return size

    def wait(self) -> None:
        """Returns once all that was read has been hashed."""
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None

    def head(self, size: int) -> bytes:
        """The first bytes, without moving."""
        try:
            return os.pread(self._file.fileno(), size, 0)
        except OSError as error:
            raise unreadable(shown(self.path), error) from None

    @property
    def sha256(self) -> str:
        """Of the bytes read so far, in hexadecimal."""
        self.wait()
        return self._digest.hexdigest()

    def refuse_if_changed(self) -> None:
        """Raises Problem when the file is not what was opened."""
        now, then = os.fstat(self._file.fileno()), self._opened_as
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise changed(self.path, f"from {then.st_size:,} to {now.st_size:,} bytes")

    def close(self) -> None:
        if self._aside is not None:
            self._aside.shutdown()
        self._file.close()

    @property
    def is_closed(self) -> bool:
        return self._file.closed

    def _take(self, data: bytes | memoryview) -> None:
        self.position_bytes += len(data)
        self.wait()
        if len(data) < _HASHED_ASIDE_BYTES:
            self._digest.update(data)
            return
        if self._aside is None:
            from concurrent.futures import ThreadPoolExecutor  # here, since small files do without

            self._aside = ThreadPoolExecutor(1, "hash")
        self._hashing = self._aside.submit(self._digest.update, data)


def changed(path: Path, how: str) -> Problem:
    return Problem(shown(path), f"changed while it was read ({how})", "Wait until it is written, then start again.")
