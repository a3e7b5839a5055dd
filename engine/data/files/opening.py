"""Opening what a person points at: regular files only, and every refusal of the system in plain words."""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path

from engine.data.rows import shown
from profiles.problem import Problem, printable

_OPEN_FAULTS = {
    errno.ENOENT: ("there is no such file", "Check the path."),
    errno.ENOTDIR: ("part of the path is a file, not a folder", "Check the path."),
    errno.EACCES: ("may not be read by you", "Ask its owner, or change its permissions (chmod u+r)."),
    errno.EPERM: ("may not be read by you", "Ask its owner, or change its permissions (chmod u+r)."),
    errno.ELOOP: ("is a link that leads back to itself", "Give the real file."),
    errno.ENAMETOOLONG: ("is longer than a path may be", "Check the path."),
    errno.ESTALE: ("lies on a network disk that has gone away", "Mount the disk again."),
}
_PIPED = "Save it to a file first, or pipe it in and give - as the path."


def mode_of(path: Path) -> int:
    """The kind and permissions of what `path` leads to. Raises Problem when there is nothing, or none may look."""
    where = shown(path)
    try:
        return path.stat().st_mode
    except ValueError:
        raise Problem(where, "holds a NUL character, which no path can", "Check the path.") from None
    except OSError as error:
        if error.errno == errno.ENOENT and path.is_symlink():
            target = printable(path.readlink())
            raise Problem(where, f"is a link to {target}, which is not there", "Give the real file.") from None
        raise unreadable(where, error) from None


def open_regular(path: Path) -> FileIO:
    """`path` opened for reading bytes. Raises Problem when it is no regular file, or may not be read."""
    mode = mode_of(path)
    if not stat.S_ISREG(mode):
        fix = _PIPED if stat.S_ISFIFO(mode) else "Give a file or a folder."
        raise Problem(shown(path), f"is {kind_name(mode)}, not a regular file", fix)
    try:
        # It may have become a FIFO since it was looked at; opening one must not wait for a writer.
        file = FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        raise unreadable(shown(path), error) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Problem(shown(path), "became something else while it was opened", "Start again.")
    return file


def unreadable(where: str, error: OSError) -> Problem:
    """The Problem for a file that the system would not open or went on to fail in the middle of."""
    what, fix = _OPEN_FAULTS.get(
        error.errno or 0, (f"cannot be read: {error.strerror or error}", "Check the disk and the path.")
    )
    return Problem(where, what, fix)


def kind_name(mode: int) -> str:
    """What a file that is not regular is, in words: "a FIFO", "a device"."""
    names = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for is_kind, name in names if is_kind(mode)), "something unusual")
