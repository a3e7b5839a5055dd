"""Data piped in, put into a file: they are read more than once, and a resumed run needs them again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from engine.data.files.layouts import layout_of
from engine.data.files.limits import BLOCK_BYTES
from engine.data.files.stored import StoredFile
from engine.data.rows import shown
from engine.data.source import Source
from profiles.problem import Problem

_WHERE = "standard input"
# Looked at every so many bytes, so that a pipe without end does not fill the disk.
_CHECKED_BYTES = 64 * 2**20
_LEFT_FREE_BYTES = 2**30
_NAMES = {"gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2", "xz": ".xz", "": ""}
_SUFFIXES = {"text": ".txt", "markdown": ".md"}


def spool_stdin(stream: BinaryIO) -> Path:
    """Copy `stream` to its end into the cache and return the file, readable by its owner only and named after its
    SHA-256, so that the same data piped in again are the same file. Raises Problem when it is empty, is a terminal,
    or does not fit the disk."""
    if stream.isatty():
        raise Problem(_WHERE, "is the keyboard", "Pipe data into it, or give a file.")
    import tempfile  # here with what it brings, since the app imports this page at its start

    from engine.home import cache_root

    folder = cache_root() / "stdin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder)  # which makes it 0600
    except OSError as error:
        raise Problem(
            shown(folder), f"cannot hold what is piped in: {error.strerror}", "Give a file instead."
        ) from None
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            digest = _copy(stream, file, folder)
        kept = folder / (digest[:32] + _suffix(path))
        path.replace(kept)
        return kept
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _copy(stream: BinaryIO, file: BinaryIO, folder: Path) -> str:
    import shutil

    digest, size_bytes, checked_bytes = hashlib.sha256(), 0, 0
    try:
        while data := stream.read(BLOCK_BYTES):
            digest.update(data)
            file.write(data)
            size_bytes += len(data)
            if size_bytes - checked_bytes >= _CHECKED_BYTES:
                checked_bytes = size_bytes
                if shutil.disk_usage(folder).free < _LEFT_FREE_BYTES:
                    raise OSError(0, "less than 1 GiB would be left free")
        file.flush()
    except OSError as error:
        what = f"stopped after {size_bytes:,} bytes: {error.strerror or error}"
        raise Problem(_WHERE, what, f"Make room on the disk of {shown(folder)}, or give a file.") from None
    if not size_bytes:
        raise Problem(_WHERE, "is empty", "Pipe data into it, or give a file.")
    return digest.hexdigest()


def _suffix(path: Path) -> str:
    """What the name ends in by what the file holds; none where it is nothing that can be read, which reading tells."""
    stored = StoredFile(path)
    try:
        layout, _ = layout_of(stored, Source(path))
    except Problem:
        return ""
    finally:
        stored.close()
    return _SUFFIXES.get(layout.format, f".{layout.format}") + _NAMES[layout.packing]
