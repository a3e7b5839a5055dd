"""Bytes out of a packed file, block by block, however large they would become."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

from engine.data.files.limits import BLOCK_BYTES
from engine.data.files.stored import StoredFile
from engine.data.rows import shown
from profiles.problem import Problem

PACKINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
"""Names of packings by what their files begin with."""

# Rows packed more than 200 to 1 hold nothing to learn, and small files do no harm. Text packs 3 to 20 to 1.
_BOMB_RATIO = 200
_BOMB_FROM_BYTES = 64 * 2**20
# A dictionary larger than this is asked for only by archives made to be small at any cost.
_XZ_MEMORY_BYTES = 128 * 2**20


def packing_of(head: bytes) -> str:
    """Name of the packing of a file that begins with `head`; "" for none."""
    return next((name for signature, name in PACKINGS.items() if head.startswith(signature)), "")


class Unpacker:
    """Reads what is packed in a stored file. Raises Problem when it is broken, or a bomb."""

    def __init__(self, stored: StoredFile, packing: str):
        self._stored = stored
        self._packing = packing
        self._unpacked_bytes = 0
        self._source = _Zstd(stored) if packing == "zstd" else _Members(stored, _DECOMPRESSORS[packing])

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; b"" at the end."""
        try:
            data = self._source.read(size)
        except Problem:
            raise
        except Exception as error:  # each library raises its own for broken data
            raise self._broken(error) from None
        self._unpacked_bytes += len(data)
        packed_bytes = max(1, self._stored.position_bytes)
        if self._unpacked_bytes > max(_BOMB_FROM_BYTES, _BOMB_RATIO * packed_bytes):
            raise Problem(
                shown(self._stored.path),
                f"unpacks to more than {_BOMB_RATIO} times its size ({self._unpacked_bytes:,} bytes from its first "
                f"{packed_bytes:,}), as data made to fill a disk do",
                "Unpack it yourself if you trust it, and give the file inside.",
            )
        return data

    def _broken(self, error: Exception) -> Problem:
        where = shown(self._stored.path)
        if isinstance(error, EOFError) or "truncated" in str(error).lower():
            return Problem(
                where, f"is cut off: its {self._packing} data end too early", "Copy or download the file again."
            )
        if "emory" in str(error):
            return Problem(where, "needs more than 128 MiB of memory to unpack", "Unpack it, and give the file inside.")
        return Problem(
            where,
            f"holds broken {self._packing} data after {self._unpacked_bytes:,} bytes",
            "Copy or download the file again.",
        )


class _Source(Protocol):
    def read(self, size: int) -> bytes: ...


class _Members:
    """What one or several packed streams, one after another, hold; zeros behind them are passed over."""

    def __init__(self, stored: StoredFile, decompressor: Callable[[], Any]):
        self._stored = stored
        self._make = decompressor
        self._member = decompressor()
        self._packed = b""
        self._is_begun = False

    def read(self, size: int) -> bytes:
        while True:
            if self._member.eof:
                self._packed = (self._member.unused_data or self._stored.read(BLOCK_BYTES)).lstrip(b"\x00")
                if not self._packed:
                    if not self._stored.read(1):
                        return b""
                    raise ValueError("more zeros than padding")
                self._member, self._is_begun = self._make(), False
            if not self._packed and self._member.needs_input:
                self._packed = self._stored.read(BLOCK_BYTES)
                if not self._packed:
                    raise EOFError
            data: bytes = self._member.decompress(self._packed, size)
            self._packed = b""
            if data:
                return data


class _Gzip:
    """zlib's decompressor with the face of bz2's and lzma's."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, size: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, size)


class _Zstd:
    """pyarrow's zstd over the stored file, which is so hashed and counted as it is read."""

    def __init__(self, stored: StoredFile):
        import pyarrow

        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(_Readable(stored), mode="r"), "zstd")

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        return data


class _Readable:
    """What pyarrow asks of a Python file."""

    closed = False

    def __init__(self, stored: StoredFile):
        self._stored = stored

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        return self._stored.read(size)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """The stored file is closed by its owner."""


def _bzip2() -> Any:
    import bz2

    return bz2.BZ2Decompressor()


def _xz() -> Any:
    import lzma

    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {"gzip": _Gzip, "bzip2": _bzip2, "xz": _xz}
