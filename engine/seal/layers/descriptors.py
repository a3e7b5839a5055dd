"""Descriptors that were inherited. A socket among them would stay connected to the world outside the seal."""

from __future__ import annotations

import _socket
import os
import stat

from engine.seal.layers import linux
from engine.seal.layers.outcome import Missing

_HIGHEST = 0x7FFFFFFF


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor that is neither 0, 1, 2 nor in `keep`, those above the limit included."""
    try:
        lowest = 3
        for kept in sorted(keep - {0, 1, 2}):
            if lowest < kept:
                linux.call("close_range", lowest, kept - 1, 0)
            lowest = kept + 1
        linux.call("close_range", lowest, _HIGHEST, 0)
    except OSError:  # Linux before 5.9, or a container's filter
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) not in keep:
                try:
                    os.close(int(name))
                except OSError:
                    pass  # the one by which the folder was read


def require_local(kept: set[int]) -> None:
    """Raises Missing for a socket among 0, 1, 2 and `kept` that leads anywhere but to one peer of this machine."""
    for descriptor in {0, 1, 2} | kept:
        try:
            is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError:
            continue  # not open
        if is_socket:
            _require_local_peer(descriptor)


def _require_local_peer(descriptor: int) -> None:
    opened = _socket.socket(fileno=descriptor)
    try:
        if opened.family != _socket.AF_UNIX:
            raise Missing(f"descriptor {descriptor}, which it was to keep, is a network socket")
        try:
            opened.getpeername()
        except OSError:
            raise Missing(f"descriptor {descriptor}, which it was to keep, is a socket without a peer") from None
    finally:
        opened.detach()
