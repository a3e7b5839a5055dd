"""The folder of shards that all runs share: where it is, how a run keeps its part of it, and how it is kept small.

A run keeps hard links to its shards in its own folder. So a resume finds exactly the data that the run began with,
whatever became of the source and of the cache, and cleaning up the cache takes nothing from a run; the links take no
room. Where that is on another disk they are copies, and so they are within a seal that has a namespace: what is shown
there of one disk in two places counts as two.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from engine.fit.cache import cache_root

# Of the disk. What is prepared is about as large as its text; more than a few data sets are seldom gone back to.
_MOST_OF_DISK = 0.1
# What another preparation may be reading just now.
_IN_USE_SECONDS = 3600


def prepared_root() -> Path:
    return cache_root() / "prepared"


def keep_shard(shard: Path, root: Path, keep: Path) -> None:
    """Give `keep` its own name for a shard of `root`, at the same place within it, in place of whatever an earlier
    start left there. Raises OSError."""
    target = keep / shard.relative_to(root)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = target.with_name(f".{secrets.token_hex(8)}")
    try:
        try:
            os.link(shard, temporary)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES):
                raise
            shutil.copy(shard, temporary)
        temporary.rename(target)
    finally:
        # Renaming one name of a file to another of its names does nothing.
        temporary.unlink(missing_ok=True)


def clean_up(root: Path, in_use: Collection[Path], most_bytes: int | None = None) -> int:
    """Remove the shards that were not used for longest until `root` takes no more than `most_bytes`, none of `in_use`
    and none that was used within the hour. Returns the bytes freed. What cannot be removed stays."""
    if most_bytes is None:
        most_bytes = int(shutil.disk_usage(root).total * _MOST_OF_DISK)
    found: list[tuple[float, int, Path]] = []
    for path in root.rglob("*"):
        with suppress(OSError):
            status = path.stat()
            if path.name.startswith(".") and path.is_file() and status.st_mtime < time.time() - _IN_USE_SECONDS:
                path.unlink()  # of a process that was killed while it wrote
                continue
            # A shard that a run keeps takes no room here.
            if path.is_file() and status.st_nlink == 1:
                found.append((status.st_mtime, status.st_size, path))
    excess, freed = sum(size for _, size, _ in found) - most_bytes, 0
    for used_at, size, path in sorted(found):
        if freed >= excess or used_at > time.time() - _IN_USE_SECONDS:
            break
        if path not in in_use:
            with suppress(OSError):
                path.unlink()
                freed += size
    for folder in root.iterdir() if freed else ():
        with suppress(OSError):
            folder.rmdir()  # only those that are empty now
    return freed
