"""Doors on this machine's loopback that count who comes through, opened outside the seal for the probes within it.

Every visitor from the seal says the listener's nonce first, so that a stray one (a port scanner, a monitoring tool) is
no hit. The kernel completes connections on its own: nothing needs to be served while the probes run, and `take` may
count afterwards. No thread; `fileno` can be selected on.
"""

from __future__ import annotations

import secrets
import selectors
import socket
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from engine.seal.proof.probes.aims import Address

_ANSWER = b"HTTP/1.0 200 OK\r\n\r\nreached"
_CONTROL = "control"
# On loopback a connection is there when connect() returns; this is for a machine that swaps.
_CONTROL_SECONDS = 5.0
_MOST_BYTES = 1 << 12
# More than there are probes, so that each finds room without being served.
_BACKLOG = 128


class Listener:
    """TCP and UDP over IPv4 and IPv6, and Unix sockets of a path and of an abstract name."""

    def __init__(self, folders: tuple[Path, ...], *, ip: str = "127.0.0.1", ip6: str = "::1"):
        """Open the doors; Unix sockets in each of `folders`, which have to be private. Where the machine has no IPv6
        those two are not there. Raises OSError."""
        self.nonce = secrets.token_hex(16)
        self._hits: Counter[str] = Counter()
        self.strays = 0
        """Visitors who did not say the nonce."""
        self._doors: dict[str, socket.socket] = {}
        self._visitors: dict[socket.socket, bytes] = {}
        self._selector = selectors.DefaultSelector()
        try:
            self._open("tcp", socket.AF_INET, socket.SOCK_STREAM, (ip, 0))
            self._open("udp", socket.AF_INET, socket.SOCK_DGRAM, (ip, 0))
            with suppress(OSError):
                self._open("tcp6", socket.AF_INET6, socket.SOCK_STREAM, (ip6, 0))
                self._open("udp6", socket.AF_INET6, socket.SOCK_DGRAM, (ip6, 0))
            for number, folder in enumerate(folders):
                self._open(f"stream{number}", socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "stream"))
                self._open(f"datagram{number}", socket.AF_UNIX, socket.SOCK_DGRAM, str(folder / "datagram"))
            self.abstract = f"finetui-{self.nonce}"
            self.abstract_datagram = f"{self.abstract}-datagram"
            self._open("abstract", socket.AF_UNIX, socket.SOCK_STREAM, f"\0{self.abstract}")
            self._open("abstract_datagram", socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{self.abstract_datagram}")
        except BaseException:
            self.close()
            raise
        self.streams = tuple(str(folder / "stream") for folder in folders)
        self.datagrams = tuple(str(folder / "datagram") for folder in folders)

    def address(self, door: str) -> Address | None:
        """Of "tcp", "udp", "tcp6", "udp6"; None where there is none."""
        if door not in self._doors:
            return None
        host, port = self._doors[door].getsockname()[:2]
        return host, port

    def fileno(self) -> int:
        """Readable while somebody waits at a door."""
        return self._selector.fileno()

    @property
    def hits(self) -> int:
        """How often the nonce was said, but for by `control`."""
        return sum(count for said, count in self._hits.items() if said != _CONTROL)

    def take(self) -> None:
        """Let in and count whoever is there, without waiting."""
        while ready := self._selector.select(timeout=0):
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                with suppress(BlockingIOError, ConnectionError):
                    self._serve(key.fileobj)

    def control(self) -> bool:
        """Reach every door from here. False where one stays shut, so that no hit would mean nothing."""
        before = self._hits[_CONTROL]
        for door in self._doors.values():
            with suppress(OSError), socket.socket(door.family, door.type) as visitor:
                visitor.settimeout(_CONTROL_SECONDS)
                visitor.connect(door.getsockname())
                visitor.sendall(f"{self.nonce} {_CONTROL}\n".encode())
                self.take()
        deadline = time.monotonic() + _CONTROL_SECONDS
        while self._hits[_CONTROL] - before < len(self._doors) and time.monotonic() < deadline:
            self._selector.select(deadline - time.monotonic())
            self.take()
        return self._hits[_CONTROL] - before == len(self._doors)

    def close(self) -> None:
        """Shut the doors; the paths stay for whoever made their folders. May be called again."""
        for each in (*self._visitors, *self._doors.values()):
            each.close()
        self._selector.close()

    def _open(self, name: str, family: int, kind: int, address: Address | str) -> None:
        door = socket.socket(family, kind)
        self._doors[name] = door
        try:
            door.bind(address)
            if kind == socket.SOCK_STREAM:
                door.listen(_BACKLOG)
        except OSError:
            self._doors.pop(name).close()
            raise
        door.setblocking(False)
        self._selector.register(door, selectors.EVENT_READ)

    def _serve(self, ready: socket.socket) -> None:
        if ready in self._visitors:
            self._hear(ready)
        elif ready.type == socket.SOCK_STREAM:
            visitor, _ = ready.accept()
            visitor.setblocking(False)
            self._visitors[visitor] = b""
            self._selector.register(visitor, selectors.EVENT_READ)
        else:
            said, sender = ready.recvfrom(_MOST_BYTES)
            if self._counted(said) and sender:
                ready.sendto(_ANSWER, sender)

    def _hear(self, visitor: socket.socket) -> None:
        """A visitor has said something, or gone."""
        try:
            news = visitor.recv(_MOST_BYTES)
        except ConnectionError:
            news = b""
        said = self._visitors[visitor] + news
        if news and self.nonce.encode() not in said and len(said) < _MOST_BYTES:
            self._visitors[visitor] = said
            return
        if self._counted(said):
            with suppress(OSError):
                visitor.sendall(_ANSWER)
        self._selector.unregister(visitor)
        del self._visitors[visitor]
        visitor.close()

    def _counted(self, said: bytes) -> bool:
        if self.nonce.encode() not in said:
            self.strays += 1
            return False
        self._hits[_CONTROL if f"{self.nonce} {_CONTROL}".encode() in said else "probe"] += 1
        return True
