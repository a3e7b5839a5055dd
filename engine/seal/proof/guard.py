"""Says which line of which file tried to get out: Python's own audit of what its socket module is asked for.

It stops nobody who means to get out (the kernel does), and hears nothing of what goes around Python: those tries the
kernel counts, without a line. What it hears it refuses before the kernel is asked, so that no try is counted twice.

It holds for this process and those forked from it, not for another program, nor another Python: such a child would
need a module of ours in its path before its own (sitecustomize), which would change what a person's environment does
for programs that are none of ours, to name a line of a try that the kernel refuses, counts and tells anyway.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import sysconfig
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from profiles.problem import printable

_LOOK_UPS = frozenset(("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"))
_SENDS = {
    "socket.connect": "connection to",
    "socket.sendto": "message to",
    "socket.sendmsg": "message to",
    "socket.bind": "opening of",
}
_HEARD = frozenset((*_LOOK_UPS, *_SENDS, "socket.__new__"))

_INTERNET = (socket.AF_INET, socket.AF_INET6)
# Unix sockets and the kernel's own messages are the kernel's to judge; -1 is a descriptor that is there already.
_OTHERS_TO_JUDGE = (-1, socket.AF_UNIX, getattr(socket, "AF_NETLINK", -1))
_FAMILIES = frozenset(socket.AddressFamily)
_ANY_HOST = ("", "0.0.0.0", "::")
# As long as a name in the DNS may be.
_LONGEST_NAME = 253

_LIBRARY = os.path.realpath(sysconfig.get_path("stdlib")) + os.sep
_PACKAGES = ("/site-packages/", "/dist-packages/")
_ROOT = os.path.realpath(__file__).rsplit("/engine/", 1)[0] + os.sep

_telling = threading.local()


def install(tell: Callable[[str, str], None], *, loopback: bool = False) -> None:
    """Hear every try from here on, for the rest of the process. `tell(what, where)` is called from whatever thread
    tried, also in forked processes: `what` in words, `where` as "file:line", or "" where no Python code did.
    `loopback`: this process has one of its own, which it may use.

    The try ends with OSError(ENETUNREACH). An error of `tell` is not the caller's: it is dropped.
    """
    # Who asks whether there is IPv6 before trying it (urllib3 at import) makes no socket for that. True under a seal.
    if not loopback:
        socket.has_ipv6 = False

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _HEARD or getattr(_telling, "now", False):
            return
        what = _what(event, arguments, loopback)
        if not what:
            return
        _telling.now = True  # what `tell` does is not heard
        try:
            tell(what, _where(sys._getframe(1)))
        except Exception:
            pass
        finally:
            _telling.now = False
        raise OSError(errno.ENETUNREACH, f"sealed: no {what}")

    sys.addaudithook(hear)


def _what(event: str, arguments: tuple[Any, ...], loopback: bool) -> str:
    """The try in words, with no more of an address than host and port; "" for what is none."""
    if event == "socket.__new__":
        family = arguments[1]
        if family in _OTHERS_TO_JUDGE or (loopback and family in _INTERNET):
            return ""
        return f"socket({socket.AddressFamily(family).name})" if family in _FAMILIES else f"socket of family {family}"
    if event in _LOOK_UPS:
        # A host, with a port after it for one of them; or both as an address.
        address: Any = arguments[0] if isinstance(arguments[0], tuple) else arguments[:2]
        words = "look-up of"
    else:
        address = arguments[1] if len(arguments) > 1 else None
        words = _SENDS[event]
        if arguments[0].family not in _INTERNET or not isinstance(address, tuple):
            return ""
    host = os.fsdecode(address[0] or "") if isinstance(address[0], str | bytes | None) else str(address[0])
    if event in _LOOK_UPS and not host:
        return ""  # asks for an address to listen at
    host = host.rpartition("@")[2]  # a name and a password before it are nobody's business
    if loopback and (_is_own(host) or (event == "socket.bind" and host in _ANY_HOST)):
        return ""
    port = f" port {address[1]}" if len(address) > 1 and address[1] else ""
    return printable(f"{words} {host}{port}", _LONGEST_NAME)


def _is_own(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _where(frame: FrameType | None) -> str:
    """The innermost line that is not of Python's own library; where that is another library's, ours too that led
    there."""
    first = ""
    while frame is not None:
        path = frame.f_code.co_filename
        if not _is_of_python(path):
            line = f"{_short(path)}:{frame.f_lineno}"
            if path.startswith(_ROOT) and not _is_of_package(path):
                return f"{first}, called from {line}" if first else line
            first = first or line
        frame = frame.f_back
    return first


def _is_of_python(path: str) -> bool:
    return path.startswith("<frozen ") or (path.startswith(_LIBRARY) and not _is_of_package(path))


def _is_of_package(path: str) -> bool:
    return any(part in path for part in _PACKAGES)


def _short(path: str) -> str:
    """The path without where things are installed; of others' files no more than the folder's name."""
    for part in _PACKAGES:
        if part in path:
            return printable(path.rpartition(part)[2], _LONGEST_NAME)
    if path.startswith(_ROOT):
        return path.removeprefix(_ROOT)
    return printable("/".join(path.split("/")[-2:]), _LONGEST_NAME)
