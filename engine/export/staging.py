"""A folder that appears at its target complete or not at all, even when the process is killed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.export.taking_over import take_over
from engine.run.durable_files import sync, sync_tree
from engine.run.private import give_modes, users_umask
from engine.run.sizes import size_text
from profiles.problem import Problem

NAME_LIMIT = 100


def check_target(target: Path) -> Path:
    """`target` made absolute. Raises Problem when something is there that would be overwritten."""
    target = target.expanduser().resolve()
    try:
        if target.is_dir():
            if any(target.iterdir()):
                raise Problem(str(target), "is not empty", "Give a folder that does not exist yet, or an empty one.")
        elif target.exists():
            raise Problem(str(target), "is a file", "Give a folder that does not exist yet, or an empty one.")
    except OSError as error:
        raise _unusable(target, error) from error
    return target


@contextmanager
def staged(target: Path, bytes_needed: int, what: str = "the export") -> Iterator[Path]:
    """A new folder beside `target`, which becomes `target` when the block ends, and goes when it raises.

    Before it is renamed every file in it is on the disk. Raises Problem when the place cannot be written to,
    has less than `bytes_needed` free for `what` it is, or was filled by something else meanwhile.
    """
    sweep(target)
    folder = _own_folder(target)
    try:
        _make_folders(target.parent)
        free = shutil.disk_usage(target.parent).free
        if free < bytes_needed:
            found = f"has {size_text(free)} free, and {what} takes {size_text(bytes_needed)}"
            raise Problem(str(target.parent), found, "Free some space, or give a folder on another disk.")
        folder.mkdir()
        yield folder
        give_modes(folder, users_umask())
        sync_tree(folder)
        folder.rename(target)  # onto nothing, or onto an empty folder; anything else is refused by the kernel
        sync(target.parent)
    except OSError as error:
        raise _unusable(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Delivery:
    """What another process puts into the folder `made`, of which that folder's own is all that it may write in."""

    def __init__(self, made: Path):
        self.made = made
        self.files: dict[str, dict[str, Any]] | None = None
        """Size and SHA-256 of each file, by its place; None until it was taken over."""
        self._folder: os.stat_result | None = None

    def take_over(self, most_bytes: int) -> None:
        """Once that process has ended: look at what it made (see taking_over). Raises Problem, OSError."""
        self.files, self._folder = take_over(self.made, most_bytes, users_umask())

    def hand_over(self, target: Path) -> None:
        """Make it `target`. Raises OSError, also where it is not what was looked at."""
        assert self._folder is not None, "what was not looked at is not handed over"
        self.made.rename(target)  # onto nothing, or onto an empty folder; anything else is refused by the kernel
        if not os.path.samestat(target.lstat(), self._folder):
            target.rename(self.made)
            raise OSError(errno.ESTALE, "was replaced while it was looked at", str(target))


@contextmanager
def delivered(target: Path) -> Iterator[Delivery]:
    """A delivery that becomes `target` when the block ends, and only if it was taken over. Raises Problem when the
    place cannot be written to, or was filled by something else meanwhile."""
    sweep(target)
    folder = _own_folder(target)
    delivery = Delivery(folder / target.name)
    try:
        _make_folders(target.parent)
        folder.mkdir(mode=0o700)
        yield delivery
        delivery.hand_over(target)
        sync(target.parent)
    except OSError as error:
        raise _unusable(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_folders(folder: Path) -> None:
    """`folder` and what is missing above it, with the modes that the person's umask leaves. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(0o777 & ~users_umask())


def sweep(target: Path) -> None:
    """Remove what exports to `target` left behind on this machine when they were killed."""
    prefix = _prefix(target)
    try:
        names = [path.name for path in target.parent.iterdir()]
    except OSError:
        return  # a folder that is not there or cannot be read holds nothing that we could remove
    for name in names:
        pid = name.removeprefix(prefix).partition(".")[0]
        if name.startswith(prefix) and pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(target.parent / name, ignore_errors=True)


def _own_folder(target: Path) -> Path:
    """Of this export alone: the process may be ending another one to the same target yet."""
    return target.parent / f"{_prefix(target)}{os.getpid()}.{secrets.token_hex(4)}"


def _prefix(target: Path) -> str:
    # With the machine's name, since a process id says nothing about another machine's on a shared disk.
    return f".{target.name[:NAME_LIMIT]}.finetui-{socket.gethostname()}-"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _unusable(target: Path, error: OSError) -> Problem:
    where = str(error.filename or target)
    return Problem(where, f"cannot be used: {error.strerror or error}", "Give a folder on a disk with room.")
