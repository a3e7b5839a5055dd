"""The folder of shards that all runs share: where it is, how a run keeps its part of it, and how it is kept small.

A run keeps hard links to its shards in its own folder. So a resume finds exactly the data that the run began with,
whatever became of the source and of the cache, and cleaning up the cache takes nothing from a run; the links take no
room. Where that is on another disk they are copies. Within a seal that has a namespace, what is shown of one disk in
two places counts as two, and the process outside that started the run is asked for the links.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from engine.home import cache_root

# Of the disk. What is prepared is about as large as its text; more than a few data sets are seldom gone back to.
_MOST_OF_DISK = 0.1
# What another preparation may be reading just now.
_IN_USE_SECONDS = 3600
# Whoever is asked for a link makes it between two other things that take milliseconds, or is gone.
_LINK_SECONDS, _LOOK_SECONDS = 10.0, 0.002


def prepared_root() -> Path:
    return cache_root() / "prepared"


class ShardKeeper:
    """Gives a run's own folder `keep` its names for shards of `root`."""

    def __init__(self, root: Path, keep: Path, ask: Callable[[str], bool] | None = None):
        """`ask`: has somebody outside of this process's seal give `keep` a name for the shard of that name within
        `root`, in their own time; False where there is nobody."""
        self._root, self._keep, self._ask = root, keep, ask

    def keep(self, shard: Path) -> None:
        """At the same place within `keep`, in place of whatever an earlier start left there. Raises OSError."""
        target = self._keep / shard.relative_to(self._root)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = target.with_name(f".{secrets.token_hex(8)}")
        try:
            try:
                os.link(shard, temporary)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES):
                    raise
                if error.errno == errno.EXDEV and self._linked_outside(shard, target):
                    return
                shutil.copy(shard, temporary)
            temporary.rename(target)
        finally:
            # Renaming one name of a file to another of its names does nothing.
            temporary.unlink(missing_ok=True)

    def _linked_outside(self, shard: Path, target: Path) -> bool:
        """Whether `target` is the shard, by a link that was asked for."""
        if self._ask is None or shard.parent.stat().st_dev != target.parent.stat().st_dev:
            return False
        if self._ask(str(shard.relative_to(self._root))):
            end = time.monotonic() + _LINK_SECONDS
            while time.monotonic() < end:
                if target.exists() and target.samefile(shard):
                    return True
                time.sleep(_LOOK_SECONDS)
        self._ask = None  # nobody does it, and the next shard would wait as long
        return False


def clean_up(root: Path, in_use: Collection[Path], most_bytes: int | None = None) -> int:
    """Remove the shards that were not used for longest until `root` takes no more than `most_bytes`, none of `in_use`
    and none that was used within the hour. Returns the bytes freed. What cannot be removed stays."""
    if most_bytes is None:
        most_bytes = int(shutil.disk_usage(root).total * _MOST_OF_DISK)
    found: list[tuple[float, int, Path]] = []
    # Passes over a folder that another process removes or renames meanwhile; Path.rglob may raise.
    for path in (Path(place, name) for place, _, names in os.walk(root) for name in names):
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
