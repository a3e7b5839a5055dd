"""The system calls that a seal refused: told by the kernel as they are tried, answered with an error, and counted.

The filter stops such a call until it is answered here. Where nobody answers any more, since this process has ended, the
kernel itself refuses (ENOSYS): no call ever gets through.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from engine.seal.layers import linux
from profiles.problem import printable

ANSWERS: Mapping[str, int] = {"socket": errno.EACCES, "socketpair": errno.EACCES, "connect": errno.ENOENT} | {
    "sendto": errno.EACCES
}
"""The error that each call gets; any other gets EPERM."""

MOST_TRIES = 100_000
"""Of one filter. From there on it is a program gone wild, which would keep the supervisor busy: the kernel refuses
by itself then, and nobody counts."""

# Of each look, before others are heard: two hundred answers take some ten milliseconds.
_MOST_AT_ONCE = 200
# linux/seccomp.h: ioctls, struct seccomp_notif (id, pid, flags; nr, arch, ip, six arguments) and its answer.
_RECEIVE, _SEND, _GET_SIZES = 0xC0502100, 0xC0182101, 3
_NOTICE, _ANSWER = struct.Struct("=QII iIQ 6Q"), struct.Struct("=QqiI")
_NAMES = {number: name for name, number in linux.NUMBERS.get(linux.MACHINE, {}).items()}
# linux/socket.h, linux/in.h. Python's own tables have those of the C library that it was built with.
_FAMILIES = {1: "UNIX", 2: "INET", 10: "INET6", 15: "KEY", 16: "NETLINK", 17: "PACKET", 21: "RDS", 30: "TIPC"} | {
    **{31: "BLUETOOTH", 38: "ALG", 39: "NFC", 40: "VSOCK", 41: "KCM", 42: "QIPCRTR", 43: "SMC", 44: "XDP"},
}
_TYPES = {1: "STREAM", 2: "DGRAM", 3: "RAW", 4: "RDM", 5: "SEQPACKET", 6: "DCCP", 10: "PACKET"}
_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPV6", 132: "SCTP", 255: "RAW", 262: "MPTCP"}
_TYPE_BITS = 0xF  # beside it stand SOCK_CLOEXEC and SOCK_NONBLOCK


@dataclass(frozen=True, slots=True)
class Tried:
    """A call that was refused: in words, by which process (its name and number), and how often."""

    what: str
    process: str
    pid: int
    count: int = 1


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Ours, for `Refusals`, and theirs, whose descriptor is the `refusals` of a SealRequest."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


class Refusals:
    """The refused calls of the processes under one seal. For one thread at a time; never waits."""

    def __init__(self, connection: socket.socket):
        """`connection`: ours of `socket_pair`, which the kernel's listener comes through; closed with this."""
        self._connection: socket.socket | None = connection
        connection.setblocking(False)
        self._listener: int | None = None
        self._notice_bytes, self._answer_bytes = _NOTICE.size, _ANSWER.size
        self._seen = 0
        self._names: dict[int, str] = {}

    @property
    def overrun(self) -> bool:
        """Whether there were so many that nobody counts them any more."""
        return self._seen >= MOST_TRIES

    def fileno(self) -> int:
        """Readable when `take` has something to do; another one once the listener has come, and -1 when it is over."""
        if self._listener is not None:
            return self._listener
        return self._connection.fileno() if self._connection is not None else -1

    def take(self) -> list[Tried]:
        """Answer what is tried now, or of very much the first part; what it was."""
        if self._listener is None and not self._receive_listener():
            return []
        found: dict[tuple[str, int], Tried] = {}
        for _ in range(_MOST_AT_ONCE):
            tried = self._take_one()
            if tried is None:
                break
            before = found.get((tried.what, tried.pid))
            found[tried.what, tried.pid] = Tried(
                tried.what, tried.process, tried.pid, before.count + 1 if before is not None else 1
            )
        self._names.clear()  # a number may be another process's by the next look
        if self.overrun:
            self.close()
        return list(found.values())

    @contextmanager
    def answered(self) -> Iterator[list[Tried]]:
        """Answer from a thread until the block is left, for who waits for the sealed process meanwhile: what was tried
        by then."""
        tried: list[Tried] = []
        over_reader, over_writer = os.pipe()

        def answer() -> None:
            while (descriptor := self.fileno()) >= 0:
                poll = select.poll()  # select knows no descriptor from 1,024 on
                poll.register(descriptor, select.POLLIN)
                poll.register(over_reader, select.POLLIN)
                ready = [number for number, _ in poll.poll()]
                tried.extend(self.take())
                if over_reader in ready:
                    return

        thread = threading.Thread(target=answer, name="refusals", daemon=True)
        thread.start()
        try:
            yield tried
        finally:
            os.close(over_writer)
            thread.join()
            os.close(over_reader)

    def close(self) -> None:
        """Answer no more: the kernel refuses by itself from now on."""
        if self._listener is not None:
            os.close(self._listener)
            self._listener = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _receive_listener(self) -> bool:
        """Whether it has come; without one, as where no filter holds, it is over."""
        if self._connection is None:
            return False
        try:
            _, descriptors, _, _ = socket.recv_fds(self._connection, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError:
            descriptors = []
        self._connection.close()
        self._connection = None
        if not descriptors:
            return False
        (self._listener,) = descriptors
        with suppress(OSError):  # else the sizes that were known when this was written
            sizes = (ctypes.c_uint16 * 3)()
            linux.call("seccomp", _GET_SIZES, 0, ctypes.byref(sizes))
            self._notice_bytes = max(_NOTICE.size, sizes[0])
            self._answer_bytes = max(_ANSWER.size, sizes[1])
        return True

    def _take_one(self) -> Tried | None:
        """Answer the next call; None when there is none now. Closes this when no process is left under the filter."""
        if self._listener is None:
            return None
        while True:
            # Asked first, since receiving waits where there is nothing.
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            events = poll.poll(0)
            if not events or not events[0][1] & select.POLLIN:
                if events:
                    self.close()
                return None
            notice = bytearray(self._notice_bytes)
            try:
                fcntl.ioctl(self._listener, _RECEIVE, notice)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):  # who tried was killed meanwhile
                    continue
                self.close()
                return None
            break
        identifier, pid, _, number, _, _, *arguments = _NOTICE.unpack_from(notice)
        name = _NAMES.get(number, "")
        tried = Tried(call_text(name, number, arguments), self._process_name(pid), pid)
        answer = bytearray(self._answer_bytes)
        _ANSWER.pack_into(answer, 0, identifier, 0, -ANSWERS.get(name, errno.EPERM), 0)
        with suppress(OSError):  # it was killed meanwhile
            fcntl.ioctl(self._listener, _SEND, answer)
        self._seen += 1
        return tried

    def _process_name(self, pid: int) -> str:
        if pid not in self._names:
            try:
                self._names[pid] = printable(Path(f"/proc/{pid}/comm").read_text(errors="replace").strip(), 40)
            except OSError:
                self._names[pid] = ""
        return self._names[pid]


def call_text(name: str, number: int, arguments: list[int]) -> str:
    """A system call in words: "socket(AF_INET, SOCK_STREAM)"."""
    if name in ("socket", "socketpair"):
        # Of each argument the kernel takes the lower half.
        family, kind, protocol = (each & 0xFFFFFFFF for each in arguments[:3])
        parts = [_named("AF_", _FAMILIES, family), _named("SOCK_", _TYPES, kind & _TYPE_BITS)]
        # Of most families the protocol is a number of their own.
        if protocol:
            parts.append(_named("IPPROTO_", _PROTOCOLS if family in (2, 10) else {}, protocol))
        return f"{name}({', '.join(parts)})"
    return f"{name}()" if name else f"system call {number}"


def _named(prefix: str, names: Mapping[int, str], value: int) -> str:
    return f"{prefix}{names[value]}" if value in names else str(value)
