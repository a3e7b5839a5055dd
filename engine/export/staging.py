"""A folder that appears at its target complete or not at all, even when the process is killed."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    folder = target.parent / f"{_prefix(target)}{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
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


@contextmanager
def delivered(target: Path) -> Iterator[Path]:
    """Where another process, which may write in the folder of it and nowhere else, is to put what becomes `target` when
    the block ends. Raises Problem when the place cannot be written to, or was filled by something else meanwhile."""
    sweep(target)
    folder = target.parent / f"{_prefix(target)}{os.getpid()}"
    try:
        folder.mkdir(parents=True, mode=0o700)
        yield folder / target.name
        (folder / target.name).rename(target)
        sync(target.parent)
    except OSError as error:
        raise _unusable(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(target: Path) -> None:
    """Remove what exports to `target` left behind on this machine when they were killed."""
    prefix = _prefix(target)
    try:
        names = [path.name for path in target.parent.iterdir()]
    except OSError:
        return  # a folder that is not there or cannot be read holds nothing that we could remove
    for name in names:
        pid = name.removeprefix(prefix)
        if name.startswith(prefix) and pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(target.parent / name, ignore_errors=True)


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
