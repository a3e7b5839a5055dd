"""Asking a live run for something: a Unix socket in the run's folder, one JSON object each way per connection.

The socket is reached through a descriptor of the folder, since a socket's path may have only 107 bytes; so the engine
also finds it in a folder that was moved. The file is for the run's own user alone, only that user (and root) is heard,
and descriptors that are sent along are closed by the kernel, since nobody takes them in.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.telemetry.records import from_line, to_line
from profiles.problem import Problem, printable

COMMANDS = ("stop", "save", "evaluate", "sample", "status", "restart", "kill")

_MESSAGE_BYTES = 1 << 12
_PATIENCE_SECONDS = 5.0
_MOST_CONNECTIONS = 32
# How often the server looks whether its file is still there: as soon as a person would try again.
_LOOK_SECONDS = 5.0
_CREDENTIALS = struct.Struct("3i")


def ask(run: RunDirectory, command: str) -> dict[str, Any]:
    """Send one of COMMANDS to a live run and return its answer. Raises Problem when nobody listens or it refuses.

    stop: finish the step, save, end. save, evaluate, sample: do that after the step. status: only tell (pid,
    worker_pid, step, phase, stop_requested). restart: end the worker at once and go on from the newest checkpoint with
    another. kill: end the worker at once, losing what was not saved, and the run with it.
    """
    where = f"run {run.name}"
    try:
        with (
            _folder_descriptor(run) as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        ):
            connection.settimeout(_PATIENCE_SECONDS)
            _connect(connection, f"/proc/self/fd/{folder}/{run.socket_path.name}")
            _, user = _peer(connection)
            if user not in (0, os.getuid(), run.path.stat().st_uid):
                what = "another user listens in place of its engine"
                raise Problem(where, what, "Check who may write to its folder.")
            connection.sendall(to_line({"command": command}))
            with connection.makefile("rb") as reader:
                answer = from_line(reader.readline(1 << 20))
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        raise Problem(where, "no engine listens there", "`finetui runs` shows which runs are live.") from None
    except TimeoutError:
        raise Problem(where, f"its engine did not answer within {_PATIENCE_SECONDS:.0f} s", "Try again.") from None
    except OSError as error:
        raise Problem(where, f"its engine cannot be reached: {error.strerror}", "Check who owns the run.") from None
    if answer is None:
        raise Problem(where, "its engine gave no answer", "Try again.")
    if "error" in answer:
        fix = printable(answer.get("fix") or "See `finetui --help`.", 200)
        raise Problem(where, printable(answer["error"], 200), fix)
    return answer


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    pid: int
    allowed: bool
    since: float
    received: bytes = b""


class ControlServer:
    """The listening end, in the supervisor. It never waits: `fileno` becomes readable when `serve` has work to do.

    A socket whose file was removed or replaced is put there again within _LOOK_SECONDS of a call of `serve`.
    """

    def __init__(self, run: RunDirectory):
        """Begin to listen; the run's lock must be held. Raises OSError on a disk that has no sockets."""
        self._name = run.socket_path.name
        self._folder = os.open(run.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._connections: dict[int, _Connection] = {}
        try:
            self._listener, self._file = self._listen()
        except OSError:
            os.close(self._folder)
            raise
        self._looked_at = time.monotonic()
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)

    def fileno(self) -> int:
        """An epoll descriptor that is readable while `serve` has something to do."""
        return self._poll.fileno()

    def serve(self, answer: Callable[[str, int], dict[str, Any]]) -> None:
        """Take in what is there and reply with `answer(command, asking pid)`, called for COMMANDS only."""
        for descriptor, _ in self._poll.poll(0):
            if descriptor == self._listener.fileno():
                self._accept()
            elif connection := self._connections.get(descriptor):
                self._receive(connection, answer)
        now = time.monotonic()
        for connection in list(self._connections.values()):
            if now - connection.since > _PATIENCE_SECONDS:
                self._reply(connection, {"error": "nothing was asked in time"})
        if now - self._looked_at > _LOOK_SECONDS:
            self._looked_at = now
            self._be_there()

    def close(self) -> None:
        """Let go of all who ask, and remove the socket's file."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._poll.close()
        self._listener.close()
        with suppress(OSError):
            if (there := self._file_there()) is not None and there == self._file:
                os.unlink(self._name, dir_fd=self._folder)
        os.close(self._folder)

    def _listen(self) -> tuple[socket.socket, tuple[int, int] | None]:
        """A listening socket, and which file it is, None where that is gone again already. Raises OSError."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            os.fchmod(listener.fileno(), 0o600)  # the file gets this mode, less what the umask takes
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._folder)
            listener.bind(f"/proc/self/fd/{self._folder}/{self._name}")
            listener.listen(_MOST_CONNECTIONS)
            return listener, self._file_there()
        except BaseException:
            listener.close()
            raise

    def _file_there(self) -> tuple[int, int] | None:
        """Which file has the socket's name, None when there is none. Raises OSError."""
        try:
            status = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _be_there(self) -> None:
        """Listen anew where the socket's file is gone or another; where that cannot be done, it is tried again."""
        with suppress(OSError):
            if (there := self._file_there()) is not None and there == self._file:
                return
            listener, self._file = self._listen()
            self._poll.unregister(self._listener)
            self._listener.close()
            self._listener = listener
            self._poll.register(listener, select.EPOLLIN)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except BlockingIOError:
            return  # whoever called has gone again
        except OSError:  # this process may not have more descriptors
            self._let_one_go()
            return
        accepted.setblocking(False)
        pid, user = _peer(accepted)
        connection = _Connection(accepted, pid, user in (0, os.getuid()), time.monotonic())
        self._connections[accepted.fileno()] = connection
        self._poll.register(accepted, select.EPOLLIN)
        if len(self._connections) > _MOST_CONNECTIONS:
            self._let_one_go()

    def _let_one_go(self) -> None:
        """Answer the one that has waited longest, first of all one that would not be heard anyway."""
        oldest = min(self._connections.values(), key=lambda each: (each.allowed, each.since), default=None)
        if oldest is not None:
            self._reply(oldest, {"error": "too many are asking at once"})

    def _receive(self, connection: _Connection, answer: Callable[[str, int], dict[str, Any]]) -> None:
        try:
            data = connection.socket.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.received += data
        line, ended, _ = connection.received.partition(b"\n")
        if ended or not data or len(line) >= _MESSAGE_BYTES:
            self._reply(connection, self._answer_to(connection, line, answer))

    def _answer_to(
        self, connection: _Connection, line: bytes, answer: Callable[[str, int], dict[str, Any]]
    ) -> dict[str, Any]:
        if not connection.allowed:
            return {"error": "this run belongs to another user"}
        if len(line) >= _MESSAGE_BYTES:
            return {"error": f"a request has less than {_MESSAGE_BYTES:,} bytes"}
        request = from_line(line)
        if request is None or not isinstance(command := request.get("command"), str):
            return {"error": 'a request is a line such as {"command": "status"}'}
        if command not in COMMANDS:
            return {"error": f"{printable(command)} is no command; there are {', '.join(COMMANDS)}"}
        return answer(command, connection.pid)

    def _reply(self, connection: _Connection, record: dict[str, Any]) -> None:
        # An answer is short enough for a fresh socket's buffer. Who has gone meanwhile misses it; the command stands.
        with suppress(OSError):
            connection.socket.send(to_line(record))
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        del self._connections[connection.socket.fileno()]
        self._poll.unregister(connection.socket)
        connection.socket.close()


def _connect(connection: socket.socket, address: str) -> None:
    """Connect within a socket's time limit. Raises OSError."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            connection.connect(address)
            return
        except BlockingIOError:  # so many wait to be let in that a Unix socket does not even queue one more
            if time.monotonic() > deadline:
                raise TimeoutError from None
            time.sleep(0.02)


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end."""
    pid, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, user


@contextmanager
def _folder_descriptor(run: RunDirectory) -> Iterator[int]:
    """A descriptor of the run's folder, good within the block."""
    descriptor = os.open(run.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
