"""Files by their contents: size and SHA-256, and whether they still are what was written down of them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 20
# What finetui writes of its own accord has some megabytes at most. A worker that was taken over may leave anything in
# its run's folder, and who reads that whole must not be kept busy, or out of memory, by it.
_OWN_BYTES = 1 << 28
# A model has some hundred files.
_MOST_FILES = 10_000
# Zeros alone are packed so well; below so much nobody is kept waiting.
_SMALL_BYTES, _MOST_TIMES = 1 << 30, 64

Read = Callable[[int], None]
"""Told of bytes as they are read."""


def file_hashes(folder: Path, read: Read = lambda count: None) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file below `folder`, by its path in it; links are left aside. Raises OSError, also for
    more files than an output has, and for one that is made of holes."""
    paths = list(islice((path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()), _MOST_FILES))
    if len(paths) == _MOST_FILES:
        raise OSError(errno.EFBIG, f"{folder.name} has {_MOST_FILES:,} files or more", str(folder))
    return {str(path.relative_to(folder)): hash_of(path, read, root=folder) for path in sorted(paths)}


def hash_of(
    path: Path, read: Read = lambda count: None, most_bytes: int | None = None, root: Path | None = None
) -> dict[str, Any]:
    """Size and SHA-256 of a file, or of its first `most_bytes`. From `root` on no link is followed, as where a worker
    could have put one, and a file that is made of holes is not read. Raises OSError, for what is no plain file as
    well."""
    with _plain(path, root) as file:
        if root is not None:
            _require_solid(os.fstat(file.fileno()), path)
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


def read_plain(path: Path, root: Path | None = None) -> bytes:
    """All of a file of ours; `root` as for `hash_of`. Raises OSError, also for what is no plain file, or has more than
    256 MiB."""
    with _plain(path, root) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _OWN_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read(size)


def small_sha256(path: Path, root: Path | None = None) -> str | None:
    """Of a file of some thousand bytes; None where it cannot be read, or is none of that size. `root` as for
    `hash_of`."""
    try:
        return hashlib.sha256(read_plain(path, root)).hexdigest()
    except OSError:
        return None


def _require_solid(status: os.stat_result, path: Path) -> None:
    """Raises OSError for a file that claims far more than it takes of the disk: anybody can make one of exabytes, which
    it takes years to read. A disk that compresses makes less of the weights of a model."""
    if status.st_size > _SMALL_BYTES and status.st_blocks * 512 * _MOST_TIMES < status.st_size:
        raise OSError(errno.EFBIG, "it is made of holes", str(path))


def _plain(path: Path, root: Path | None) -> FileIO:
    """An open file. Raises OSError, for what is no plain file as well: a pipe that somebody put there would be waited
    for."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    if root is None:
        descriptor = os.open(path, flags)
    else:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        *between, name = path.relative_to(root).parts
        try:
            for each in between:
                below = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                os.close(folder)
                folder = below
            descriptor = os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return FileIO(descriptor)
