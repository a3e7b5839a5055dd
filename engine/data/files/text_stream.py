"""The text of a file as UTF-8, block by block, whatever it is packed or encoded in."""

from __future__ import annotations

import codecs
import sys
from typing import Protocol

from engine.data.files.chunk import Layout
from engine.data.files.limits import BLOCK_BYTES
from engine.data.files.packed import Unpacker
from engine.data.files.stored import StoredFile


class Readable(Protocol):
    def read(self, size: int) -> bytes: ...


class TextStream:
    """Bytes that its encoding does not allow come out as bytes that UTF-8 does not allow either, so that whoever
    parses the text sets just those records aside."""

    def __init__(self, stored: StoredFile, layout: Layout):
        self.path = stored.path
        self._stored = stored
        self._source: Readable = Unpacker(stored, layout.packing) if layout.packing else stored
        is_utf8 = layout.encoding == "utf-8"
        self._decoder = None if is_utf8 else codecs.getincrementaldecoder(layout.encoding)(errors=_BROKEN)
        self._left = b""
        self.offset = 0
        """Bytes of text handed out, a byte-order mark passed over included."""
        while self.offset < layout.skipped_bytes and self.read(layout.skipped_bytes - self.offset):
            pass

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        """The next bytes of text, at most `size`; b"" only at the end."""
        data = self._left or (self._source.read(size) if self._decoder is None else self._transcoded(size))
        data, self._left = data[:size], data[size:]
        self.offset += len(data)
        return data

    def read_into(self, view: memoryview) -> int:
        """Fill `view` with the next bytes of text as far as they are there at once; 0 only at the end. Until `wait`
        returns they may not be changed."""
        if self._decoder is None and self._source is self._stored:
            size = self._stored.read_into(view)
            self.offset += size
            return size
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def wait(self) -> None:
        self._stored.wait()

    @property
    def most_bytes(self) -> int:
        """More text than this does not come."""
        return self._stored.size_bytes if self._decoder is None and self._source is self._stored else sys.maxsize - 1

    @property
    def position_bytes(self) -> int:
        """Of the stored file, read so far."""
        return self._stored.position_bytes

    def _transcoded(self, size: int) -> bytes:
        assert self._decoder is not None
        while True:
            stored = self._source.read(size)
            text = self._decoder.decode(stored, final=not stored)
            if text or not stored:
                return text.encode("utf-8", "surrogatepass")


def _mark_broken(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


_BROKEN = "finetui-broken"
codecs.register_error(_BROKEN, _mark_broken)
