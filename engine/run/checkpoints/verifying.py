"""Whether a checkpoint is as it was saved: every file of it is read and its SHA-256 compared."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from engine.run.checkpoints.manifest import (
    FILES,
    DamagedError,
    Manifest,
    Sealed,
    list_checkpoints,
    read_manifest,
    step_of,
)
from profiles.problem import printable

# Enough that the calls cost nothing beside the hashing, few enough to stay in a processor's cache.
_BLOCK_BYTES = 1 << 20

_Stamp = tuple[tuple[str, int, int, int, int], ...]
_found_good: dict[Path, _Stamp] = {}
"""Checkpoints that this process read and found good, and how their files looked then."""


def newest_checkpoint(root: Path) -> tuple[Path | None, list[str]]:
    """The newest undamaged checkpoint under `root`, if any, and what was found wrong with newer ones."""
    skipped: list[str] = []
    for path in reversed(list_checkpoints(root)):
        reason = damage(path)
        if reason is None:
            return path, skipped
        skipped.append(f"{path.name} was passed over: {reason}")
    return None, skipped


def damage(path: Path) -> str | None:
    """What is wrong with the checkpoint in `path`, in words; None when every file is as its manifest says."""
    try:
        manifest = read_manifest(path)
        step = step_of(path)
        if manifest.step is not None and step is not None and manifest.step != step:
            return f"it is the checkpoint of step {manifest.step} under another's name"
        verify_files(path, manifest)
    except DamagedError as damaged:
        _found_good.pop(path, None)
        return str(damaged)
    remember_good(path)
    return None


def known_damage(path: Path) -> str | None:
    """As `damage`; where this process found the checkpoint good before and no file of it was touched since, it is not
    read again, which takes a second for a GiB."""
    return None if path in _found_good and _found_good[path] == _stamp(path) else damage(path)


def remember_good(path: Path) -> None:
    """Take the checkpoint in `path` for good as long as nobody touches its files: they were read just now."""
    if (stamp := _stamp(path)) is not None:
        _found_good[path] = stamp


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file in `folder` with `manifest`. Raises DamagedError."""
    for name in FILES:
        if name not in manifest.files:
            raise DamagedError(f"its manifest has no {name}")
    for name, sealed in manifest.files.items():
        verify_file(folder / name, sealed)


def verify_file(path: Path, sealed: Sealed, *, from_disk: bool = False) -> None:
    """Compare one file with what was `sealed`; `from_disk` as for `read_back`. Raises DamagedError."""
    try:
        size = path.stat().st_size
        if size != sealed.bytes:
            raise DamagedError(f"{printable(path.name)} has {size:,} bytes instead of {sealed.bytes:,}")
        if read_back(path, from_disk=from_disk) != sealed.sha256:
            raise DamagedError(f"{printable(path.name)} is not the file that was saved: its contents are others")
    except FileNotFoundError:
        raise DamagedError(f"{printable(path.name)} is missing") from None
    except OSError as error:
        raise DamagedError(f"{printable(path.name)} cannot be read ({error.strerror})") from None


def read_back(path: Path, *, from_disk: bool) -> str:
    """The SHA-256 of a file; what of it is in memory only is not trusted with `from_disk`. Raises OSError.

    Then the kernel is asked to forget the file's pages before it is read and after, so that they come from the disk
    and do not drive out what training needs. Pages that are not on the disk yet stay: sync the file before. A file
    system that has no disk (tmpfs) or does not heed it gives what it holds.
    """
    digest = hashlib.sha256()
    # Of what a worker may have left: a pipe is not waited for, a link not followed, a device not read.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 (a descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        if from_disk:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        block = memoryview(bytearray(_BLOCK_BYTES))
        while count := file.readinto(block):
            digest.update(block[:count])
        if from_disk:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()


def _stamp(path: Path) -> _Stamp | None:
    """What changes when a file in `path` is written to, replaced or removed; None when the folder is gone."""
    try:
        entries = sorted((each.name, each.stat()) for each in path.iterdir())
    except OSError:
        return None
    return tuple((name, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns) for name, at in entries)
