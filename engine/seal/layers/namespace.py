"""A network of its own without a way out, and a file system that shows what was named."""

from __future__ import annotations

import ctypes
import os

from engine.seal.layers import capabilities, linux, remedies, view
from engine.seal.layers.outcome import Outcome

_MOUNTS, _MESSAGES, _USERS, _NETWORK = 0x00020000, 0x08000000, 0x10000000, 0x40000000
_OWN = _MOUNTS | _MESSAGES | _NETWORK
_GET_FLAGS, _SET_FLAGS, _UP, _RUNNING = 0x8913, 0x8914, 0x1, 0x40


class _Interface(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * 16), ("flags", ctypes.c_short), ("rest", ctypes.c_char * 22)]


def enter(read: list[str], write: list[str]) -> Outcome:
    """Leave the machine's network, files and message queues. Capabilities in what is new are held until they are
    dropped. Raises Missing, and then nothing has changed."""
    outcome = Outcome()
    by_root = capabilities.holds(capabilities.SYS_ADMIN)
    if by_root:
        _leave(_OWN)
    else:
        _leave_as_anyone()
    try:
        _start_loopback()
    except OSError as error:
        outcome.gaps.append(f"its loopback could not be started: {error.strerror}")
    here = _working_folder()
    files = view.View(read, write)
    shown: list[str] = []
    try:
        shown = files.show([here, os.path.expanduser("~"), os.environ.get("TMPDIR", "/tmp")])
    except OSError as error:
        outcome.gaps.append(f"the machine's files are not covered: {error.strerror}")
    try:
        os.chdir(here)
    except OSError as error:
        os.chdir("/")
        outcome.gaps.append(f"it does not work in {here}: {error.strerror}")
    outcome.gaps += files.gaps
    outcome.detail = {"masked": ["/"] if shown else [], "shown": shown, "users": not by_root}
    return outcome


def _working_folder() -> str:
    """By name; the root where it has none, since it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _leave(what: int) -> None:
    """All of it, or nothing. Raises Missing."""
    try:
        linux.call("unshare", what)
    except OSError as error:
        raise remedies.namespace_missing(error.errno or 0) from None


def _leave_as_anyone() -> None:
    """By way of a user namespace in which this user is who it was. Tried in a child first: where the kernel lets it be
    made and then refuses what belongs to it (Ubuntu does), a process that made one is nobody, and cannot go back."""
    user, group = os.geteuid(), os.getegid()
    child = os.fork()
    if child == 0:
        try:
            linux.call("unshare", _USERS)
            _stay(user, group)
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise remedies.namespace_missing(status)
    _leave(_OWN | _USERS)
    _stay(user, group)
    try:
        _write("/proc/sys/user/max_user_namespaces", "0")  # within this one: no further ones, even without seccomp
    except OSError:
        pass


def _stay(user: int, group: int) -> None:
    """Be the user in the new namespace that this was before. Raises OSError."""
    for name, content in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        _write(f"/proc/self/{name}", content)


def _write(path: str, content: str) -> None:
    with open(path, "w") as file:
        file.write(content)


def _start_loopback() -> None:
    descriptor = linux.open_socket(2, 2)
    try:
        loopback = _Interface(b"lo", 0, b"")
        linux.control(descriptor, _GET_FLAGS, loopback)
        loopback.flags |= _UP | _RUNNING
        linux.control(descriptor, _SET_FLAGS, loopback)
    finally:
        os.close(descriptor)
