"""Links that a sealed worker asks for: within its seal a disk that is shown in two places counts as two."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.data.prepare.cache import prepared_root
from engine.run.directory import RunDirectory

# The hashes by which recipe and chunk are called, and what shards are.
_SHARD = re.compile(r"(?P<folder>[0-9a-z]{1,128})/(?P<file>[0-9a-z]{1,128}\.safetensors)")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def link_shard(run: RunDirectory, name: Any) -> None:
    """Give the run's data folder its own name for the shard `name` ("recipe/chunk.safetensors") of the cache, in place
    of what is there. Whoever asks may write into both folders, and is not trusted: below the cache's folder and the
    run's no link is followed, and what is linked is a file of this user. Raises ValueError for what names no shard, or
    is none, and OSError."""
    match = _SHARD.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise ValueError("not the name of a shard")
    root, folder, file = prepared_root(), match["folder"], match["file"]
    with _beneath(root.parent, root.name, folder) as shards:
        shard = os.open(file, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=shards)
    try:
        status = os.fstat(shard)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ValueError("not a file of ours")
        with _beneath(run.path, run.data.name, folder, make=True) as kept:
            temporary = f".{secrets.token_hex(8)}"
            # The very file that was looked at, whatever has its name by now.
            os.link(f"/proc/self/fd/{shard}", temporary, dst_dir_fd=kept)
            try:
                os.rename(temporary, file, src_dir_fd=kept, dst_dir_fd=kept)
            finally:
                # Renaming one name of a file to another of its names does nothing.
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=kept)
    finally:
        os.close(shard)


@contextmanager
def _beneath(trusted: Path, *names: str, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder `names` lead to from `trusted`; `make`: the last one, where it is not there. Raises
    ValueError where a link is on the way, OSError."""
    descriptor = os.open(trusted, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            if make and name == names[-1]:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=descriptor)
            try:
                below = os.open(name, _FOLDER, dir_fd=descriptor)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise ValueError("a link is on the way") from None
                raise
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)
