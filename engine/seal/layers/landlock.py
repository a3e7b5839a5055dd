"""Landlock: the kernel refuses every file but those that were named, and what else its version knows to refuse."""

from __future__ import annotations

import ctypes
import errno
import os

from engine.seal.layers import linux, remedies
from engine.seal.layers.outcome import Missing, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from engine.seal.request import Sockets

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV, _RESOLVE_UNIX = (1 << bit for bit in range(13, 17))
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT, _SCOPE_SIGNAL = 1, 2
_BENEATH, _VERSION_OF = 1, 1

_FIRST = _REFER - 1
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_DEVICE = _READ_FILE | _WRITE_FILE | _READ_DIR | _IOCTL_DEV
_NEVER = _MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV

# What each version of the kernel's Landlock added: of files, of the network, of what is outside; and in words. The last
# says whether nothing else of a seal refuses that (the namespace and seccomp do sockets).
_ADDED: tuple[tuple[int, int, int, int, str, bool], ...] = (
    (1, _FIRST, 0, 0, "files that were not named", True),
    (2, _REFER, 0, 0, "moving files to where more may be done to them", True),
    (3, _TRUNCATE, 0, 0, "truncating files that may only be read", True),
    (4, 0, _BIND_TCP | _CONNECT_TCP, 0, "TCP", False),
    (5, _IOCTL_DEV, 0, 0, "controlling devices that were not named", True),
    (6, 0, 0, _SCOPE_SIGNAL, "signals to processes outside", True),
    (6, 0, 0, _SCOPE_ABSTRACT, "abstract Unix sockets of processes outside", False),
    (9, _RESOLVE_UNIX, 0, 0, "Unix sockets that were not named", False),
)


class Ruleset(ctypes.Structure):
    """What is refused unless a rule allows it."""

    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def refusals(version: int, sockets: Sockets) -> tuple[Ruleset, int, list[str], list[str]]:
    """Of a kernel's Landlock of this version: what it is asked to refuse, the bytes of that which it knows, what this
    is in words, and what neither it nor another layer refuses. A loopback that processes share keeps its TCP."""
    asked, closed, open_ = Ruleset(), [], []
    for since, files, network, scoped, words, alone in _ADDED:
        if network and sockets == "loopback":
            continue
        if version >= since:
            asked.files |= files
            asked.network |= network
            asked.scoped |= scoped
            closed.append(words)
        elif alone:
            open_.append(words)
    return asked, 8 if version < 4 else 16 if version < 6 else 24, closed, open_


def restrict(read: list[str], write: list[str], devices: list[str], sockets: Sockets) -> Outcome:
    """Refuse everything but what is named, for this process and all it starts. What is not there is passed over, and
    so is a link, which would allow what it leads to. no_new_privs is set already. Raises Missing."""
    try:
        version = linux.call("landlock_create_ruleset", None, 0, _VERSION_OF)
    except OSError as error:
        raise remedies.landlock_missing(error.errno or 0) from None
    asked, size, closed, open_ = refusals(version, sockets)
    outcome = Outcome()
    rules = 0
    try:
        ruleset = linux.call("landlock_create_ruleset", ctypes.byref(asked), size, 0)
        for paths, rights in ((read, _READ), (write, asked.files & ~_NEVER), (devices, _DEVICE)):
            rules += sum(_allow(ruleset, path, rights & asked.files) for path in paths)
        linux.call("landlock_restrict_self", ruleset, 0)
    except OSError as error:
        raise Missing(f"the kernel answered to {error.filename}: {error.strerror}") from None
    os.close(ruleset)
    outcome.detail = {"abi": version, "rules": rules, "closed": closed}
    if open_:
        outcome.gaps.append(f"version {version} of it, which this kernel has, does not refuse " + ", ".join(open_))
    return outcome


def _allow(ruleset: int, path: str, rights: int) -> bool:
    """Whether `path` was there to be allowed."""
    if os.path.islink(path):
        return False
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        linux.call("landlock_add_rule", ruleset, _BENEATH, ctypes.byref(_Beneath(rights, parent)), 0)
    except OSError as error:
        if error.errno != errno.EBADFD:  # of a file system that the kernel keeps to itself, to which no rule applies
            raise
    finally:
        os.close(parent)
    return True
