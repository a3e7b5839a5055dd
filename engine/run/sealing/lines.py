"""How a supervisor hears of what tries to get out of a seal, from the two who notice: the guard in Python, which knows
file and line, and the kernel, which misses nothing. One try is told by one of them, since the guard stops it before it
comes to a system call.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

from engine.run.telemetry.records import from_line
from engine.seal.proof.refusals import Refusals, socket_pair

GUARD_VARIABLE = "FINETUI_WAYS_OUT"
"""The environment variable that names a sealed process's descriptor for telling of tries."""

# Of each look, before others are heard.
_MOST_READS = 200
_MESSAGE_BYTES, _CHARACTERS = 4096, 200
_CREDENTIALS = struct.Struct("3i")


def tell_from_environment() -> Callable[[str, str], None] | None:
    """The function by which the guard tells what was tried, and where ("file:line"); None where nobody listens. It may
    be called by any thread, and in children that were forked: each message is whole or is not sent."""
    number = os.environ.pop(GUARD_VARIABLE, "")
    if not number:
        return None
    line = socket.socket(fileno=int(number))
    line.set_inheritable(False)

    def tell(what: str, where: str) -> None:
        message = json.dumps({"what": what[:_CHARACTERS], "where": where[:_CHARACTERS]})
        with suppress(OSError):  # nobody reads, or not so fast: the call is refused all the same
            line.send(message.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    return tell


class GuardLine:
    """The supervisor's end of the line by which guards tell."""

    def __init__(self, ours: socket.socket):
        self._ours = ours
        ours.setblocking(False)
        # Who sent it is the kernel's word.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def fileno(self) -> int:
        """Readable when `take` has something to do; -1 when the line is closed."""
        return self._ours.fileno()

    def take(self) -> Iterator[tuple[str, str, int]]:
        """What was tried, where, and by the process of which number, since the last call; of very much a part. Closes
        the line when nobody holds its other end."""
        for _ in range(_MOST_READS):
            try:
                # There is room for the sender's credentials and for no descriptors, which the kernel then closes.
                message, told, _, _ = self._ours.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return
            except OSError:
                message, told = b"", []
            if not message:
                self.close()
                return
            record = from_line(message) or {}
            what, where = record.get("what"), record.get("where")
            pids = [_CREDENTIALS.unpack(data)[0] for _, kind, data in told if kind == socket.SCM_CREDENTIALS]
            if isinstance(what, str) and isinstance(where, str) and pids:
                yield what, where, pids[0]

    def close(self) -> None:
        self._ours.close()


class SealLines:
    """Both lines of one worker. The ends that are the worker's are open until it has `started`."""

    def __init__(self) -> None:
        """Raises OSError."""
        # Of this kind each message is one: processes that share it cannot get into each other's words.
        ours, self._guards_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.guards = GuardLine(ours)
        ours, self._refusals_theirs = socket_pair()
        self.refusals = Refusals(ours)

    @property
    def variables(self) -> dict[str, str]:
        """For the environment of a sealed process."""
        return {GUARD_VARIABLE: str(self._guards_theirs.fileno())}

    @property
    def guard_descriptor(self) -> int:
        """For a sealed process to keep."""
        return self._guards_theirs.fileno()

    @property
    def refusals_descriptor(self) -> int:
        """The `refusals` of a SealRequest."""
        return self._refusals_theirs.fileno()

    def started(self) -> None:
        """The worker has its ends, or there is none."""
        self._guards_theirs.close()
        self._refusals_theirs.close()

    def close(self) -> None:
        self.started()
        self.guards.close()
        self.refusals.close()
