"""Files by their contents: size and SHA-256, and whether they still are what was written down of them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 20
# What finetui writes of its own accord has some megabytes at most. A worker that was taken over may leave anything in
# its run's folder, and who reads that whole must not be kept busy, or out of memory, by it.
_OWN_BYTES = 1 << 28

Read = Callable[[int], None]
"""Told of bytes as they are read."""


def file_hashes(folder: Path, read: Read = lambda count: None) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file below `folder`, by its path in it; links are left aside. Raises OSError."""
    return {
        str(path.relative_to(folder)): hash_of(path, read)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def hash_of(path: Path, read: Read = lambda count: None, most_bytes: int | None = None) -> dict[str, Any]:
    """Size and SHA-256 of a file, or of its first `most_bytes`. Raises OSError, for what is no plain file as well."""
    with _plain(path) as file:
        digest, block, size = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES)), 0
        while most_bytes is None or size < most_bytes:
            wanted = _BLOCK_BYTES if most_bytes is None else min(_BLOCK_BYTES, most_bytes - size)
            count = file.readinto(block[:wanted])
            if not count:
                break
            digest.update(block[:count])
            size += count
            read(count)
    return {"bytes": size, "sha256": digest.hexdigest()}


def read_plain(path: Path) -> bytes:
    """All of a file of ours. Raises OSError, also for what is no plain file, or has more than 256 MiB."""
    with _plain(path) as file:
        if os.fstat(file.fileno()).st_size > _OWN_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read(_OWN_BYTES)


def small_sha256(path: Path) -> str | None:
    """Of a file of some thousand bytes; None where it cannot be read, or is none of that size."""
    try:
        return hashlib.sha256(read_plain(path)).hexdigest()
    except OSError:
        return None


def _plain(path: Path) -> FileIO:
    """An open file. Raises OSError, for what is no plain file as well: a pipe that somebody put there would be waited
    for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return FileIO(descriptor)
