"""Out by sockets, pipes and terminals of this machine's other programs, which have a network."""

from __future__ import annotations

import os
import socket
import stat
from array import array
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from engine.seal.proof.probes.aims import Aims


def by_stream(aims: Aims) -> str:
    return _one_of(partial(_connect, aims, path) for path in aims.streams)


def by_datagram(aims: Aims) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        return _one_of(partial(_send, aims, out, path) for path in aims.datagrams)


def by_abstract(aims: Aims) -> str:
    return _connect(aims, f"\0{aims.abstract}")


def by_abstract_datagram(aims: Aims) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        return _send(aims, out, f"\0{aims.abstract_datagram}")


def by_pair(aims: Aims) -> str:
    """A socket that came with its peer sends elsewhere: the address lies in memory, where no filter of calls looks."""
    addresses = (*aims.datagrams, f"\0{aims.abstract_datagram}")
    out, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with out, other:
        return _one_of(partial(_message, aims, out, address) for address in addresses)


def by_handing_over(aims: Aims) -> str:
    """A descriptor sent to a program outside, which may read what is behind it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as out:
        out.connect(aims.streams[0])
        own = os.open("/dev/null", os.O_RDONLY)
        out.sendmsg([f"{aims.nonce}\n".encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [own]))])
        return "a descriptor was handed over"


def by_inherited(aims: Aims) -> str:
    """A socket that was open before the seal stays connected to the network outside."""
    found = [number for each in Path("/proc/self/fd").iterdir() if _is_socket(number := int(each.name))]
    if not found:
        raise FileNotFoundError(2, "none is open")
    return f"{len(found)} open: {', '.join(map(str, found))}"


def by_named_pipe(aims: Aims) -> str:
    out = os.open(Path(aims.folder) / "pipe", os.O_WRONLY | os.O_NONBLOCK)
    os.write(out, aims.nonce.encode())
    return "written to"


def by_terminal(aims: Aims) -> str:
    """Keystrokes pushed into a terminal, for the shell behind it to run. Into one of our own, not the person's."""
    import fcntl
    import termios

    _, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSTI, b"\0")
    return "a key was pushed"


def _connect(aims: Aims, address: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as out:
        out.connect(address)
        out.sendall(f"{aims.nonce}\n".encode())
        return f"connected to {_name(address)}"


def _send(aims: Aims, out: socket.socket, address: str) -> str:
    out.sendto(aims.nonce.encode(), address)
    return f"sent to {_name(address)}"


def _message(aims: Aims, out: socket.socket, address: str) -> str:
    out.sendmsg([aims.nonce.encode()], [], 0, address)
    return f"sent to {_name(address)}"


def _name(address: str) -> str:
    return "an abstract name" if address.startswith("\0") else address


def _one_of(tries: Iterable[Callable[[], str]]) -> str:
    """The answer of the first that succeeds. Raises the last refusal when none does."""
    refused = OSError()
    for each in tries:
        try:
            return each()
        except OSError as error:
            refused = error
    raise refused


def _is_socket(number: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:  # the one by which the folder was listed
        return False


PROBES = (
    ("a Unix socket of a path, as D-Bus's or Docker's", by_stream),
    ("a Unix datagram to a path, as the system's log", by_datagram),
    ("an abstract Unix socket", by_abstract),
    ("a datagram to an abstract Unix socket", by_abstract_datagram),
    ("a message from a socket pair to elsewhere", by_pair),
    ("a descriptor handed to a program outside", by_handing_over),
    ("a socket that was inherited", by_inherited),
    ("a named pipe outside", by_named_pipe),
    ("keystrokes pushed into a terminal (TIOCSTI)", by_terminal),
)
