"""The lock a supervisor holds for as long as it lives: who has it decides whether a run is live.

fcntl locks belong to a process: they are not inherited by its children, as flock's are, and the kernel lets go of
them whatever the process died of. They are also let go when the process closes *any* descriptor of the file, so here
the lock of a process of its own is never opened a second time, by whatever name it is asked after.

They hold between the containers of a machine, and between machines on network disks with locks (NFS 4, CIFS). A disk
that refuses locks refuses the run. One that keeps them on each machine to itself (NFS mounted with nolock, some FUSE
file systems) looks like any other: there a run is safe only as long as one machine at a time is told to go on with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

_FLOCK = struct.Struct("hhqqi")  # struct flock on 64-bit Linux: type, whence, start, length, pid

# The locks that this process took: by its pid (a fork has none of them) and descriptor, which files they are.
_held: dict[tuple[int, int], os.stat_result] = {}


def take_lock(path: Path) -> int:
    """Lock `path` for this process and return the descriptor to keep. Raises BlockingIOError when it is taken."""
    if _is_ours(path):
        raise BlockingIOError(errno.EAGAIN, "this process holds the lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, PermissionError):  # POSIX allows EACCES for a taken lock, too
            raise BlockingIOError(*error.args) from None
        raise
    _held[os.getpid(), descriptor] = os.fstat(descriptor)
    return descriptor


def lock_holder(path: Path) -> int | None:
    """The pid that holds the lock on `path`, or None. Only asks: it never holds the lock, not even for a moment.

    0 or less stands for a process that cannot be named from here (another machine's, another container's).
    """
    if _is_ours(path):
        return os.getpid()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(descriptor)
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else pid


def let_go(descriptor: int) -> None:
    """Give back a lock that `take_lock` took."""
    _held.pop((os.getpid(), descriptor), None)
    os.close(descriptor)


def _is_ours(path: Path) -> bool:
    """Whether this process holds the lock on the file that `path` names, be it by a link."""
    for (pid, descriptor), file in tuple(_held.items()):
        with suppress(OSError):  # a descriptor that was closed holds nothing any more
            held = pid == os.getpid() and os.path.samestat(file, os.fstat(descriptor))
            if held and os.path.samestat(file, path.stat()):
                return True
    return False
