"""What finetui keeps is for its user alone: folders that nobody else enters, and none that somebody else prepared.

Files and folders are made under a umask of 077, whatever the caller's is, but for what is handed over on purpose (an
export), which gets the caller's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from profiles.problem import Problem, printable

PRIVATE_UMASK = 0o077
_OTHERS = 0o077

_given_umask: int | None = None


def keep_to_ourselves() -> None:
    """From now on whatever this process and its children make is closed to other users. To be called at the start, and
    once is enough."""
    global _given_umask  # noqa: PLW0603 (a process has one umask)
    before = os.umask(PRIVATE_UMASK)
    if _given_umask is None:
        _given_umask = before


def users_umask() -> int:
    """What the user's shell takes from the modes of new files, for those that are handed over."""
    if _given_umask is not None:
        return _given_umask
    present = os.umask(PRIVATE_UMASK)  # the system has no other way to ask
    os.umask(present)
    return present


def private_folder(path: Path) -> bool:
    """Make the folder `path`, and what is missing above it, for this user alone; one that is there and that others may
    enter is closed to them. Returns whether that was so. Raises Problem for one that another user prepared, OSError."""
    path = path.absolute()
    _require_own_way(path)
    for missing in reversed([each for each in (path, *path.parents) if not os.path.lexists(each)]):
        with suppress(FileExistsError):  # another process of ours was faster, or another user, which is seen below
            missing.mkdir(mode=0o700)
    require_own(path)
    return close(path)


def require_own(path: Path) -> None:
    """Raises Problem where the folder `path` is another user's, or was put there by another, and OSError where it is
    not there. What belongs to root is trusted; and root may use what lies where its owner alone makes names."""
    path = path.absolute()
    _require_own_way(path)
    owner = path.stat().st_uid
    if not _is_trusted(owner) and os.geteuid() != 0:
        raise _anothers(path, owner, "belongs to")


def close(path: Path) -> bool:
    """Take from other users what they may do with `path`; whether there was anything. What is not ours stays as it is.
    Raises OSError."""
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if not mode & _OTHERS or status.st_uid != os.geteuid():
        return False
    path.chmod(mode & ~_OTHERS)
    return True


def give_modes(folder: Path, umask: int) -> None:
    """Let `folder` and all in it have the modes of new files under `umask`: what was copied into it has those of the
    run that it came from. Raises OSError."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def user_name(number: int) -> str:
    """A user's name, or their number where the system has no name for it."""
    import pwd  # here, since it is asked for when something is wrong

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _require_own_way(path: Path) -> None:
    """Raises Problem where a name on the way to `path` was made by another user in a folder where anybody makes names:
    what it leads to is theirs to choose."""
    for each in _way(path):
        try:
            status = each.lstat()
            above = each.parent.stat()
        except FileNotFoundError:
            return  # from here on nothing is there yet
        if above.st_mode & stat.S_IWOTH and not _is_trusted(status.st_uid):
            what = "is a link that was put there by" if stat.S_ISLNK(status.st_mode) else "belongs to"
            raise _anothers(each, status.st_uid, what)


def _way(path: Path) -> Iterator[Path]:
    """Each name on the way to `path`, from the root, and on the way to where a link leads."""
    resolved = path.resolve()
    for end in dict.fromkeys((path, resolved)):
        yield from reversed((end, *end.parents[:-1]))


def _is_trusted(owner: int) -> bool:
    return owner in (0, os.geteuid())


def _anothers(path: Path, owner: int, what: str) -> Problem:
    return Problem(
        printable(path, 500),
        f"{what} {user_name(owner)}, another user, who could read or replace what finetui keeps there",
        "Set FINETUI_HOME to a folder of your own.",
    )
