"""The worker's side of the line to its supervisor: events go up, commands come down, one JSON object on a line each."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from engine.run.telemetry.records import from_line, to_line
from profiles.problem import Problem

CHANNEL_VARIABLE = "FINETUI_CHANNEL"
"""The environment variable that names the worker's descriptor of the channel."""


class Channel:
    """A line to the supervisor over a connected stream socket. Not for several threads at once.

    When the supervisor is gone, nobody writes the journal any more: `commands` then says "stop" once, so that the
    worker saves and ends, and what is sent goes to the log instead.
    """

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._received = b""
        self._terminated = False
        self._told_gone = False
        self.supervisor_gone = False

    @classmethod
    def from_environment(cls) -> Channel:
        """The channel that the supervisor handed to this process. Raises Problem when there is none."""
        number = os.environ.pop(CHANNEL_VARIABLE, "")
        try:
            connection = socket.socket(fileno=int(number))
        except (ValueError, OSError):
            raise Problem(
                "the trainer",
                "was not started by an engine",
                "Use `finetui train` or `finetui resume`.",
            ) from None
        # Children that the worker starts must not hold the line open after it has ended.
        connection.set_inheritable(False)
        return cls(connection)

    def install_sigterm(self) -> None:
        """From now on SIGTERM does not end this process but is reported once, as the command "stop"; nor do an
        interrupt, or the warning before a limit of processor time ends it."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU):
            signal.signal(number, self._on_sigterm)

    def send(self, kind: str, **fields: Any) -> None:
        """Hand an event to the supervisor, which writes it to the journal; waits while the supervisor is busy."""
        line = to_line({"kind": kind, **fields})
        if not self.supervisor_gone:
            try:
                self._connection.sendall(line)
                return
            except (BrokenPipeError, ConnectionResetError):
                self.supervisor_gone = True
        with suppress(OSError):  # a full disk must not keep the worker from what it can still save
            # Its kind and step alone: an answer, or a problem's words, may quote the data.
            at = f" of step {step}" if isinstance(step := fields.get("step"), int) else ""
            print(f"not journalled, the engine is gone: {kind}{at}", file=sys.stderr, flush=True)

    def commands(self) -> list[str]:
        """What was asked since the last call, in order, without waiting: stop, save, evaluate, sample."""
        self._receive()
        *lines, self._received = self._received.split(b"\n")
        commands = [str(record["command"]) for line in lines if (record := from_line(line)) and "command" in record]
        if self._terminated:
            self._terminated = False
            commands.append("stop")
        if self.supervisor_gone and not self._told_gone:
            self._told_gone = True
            commands.append("stop")
        return commands

    def stop_is_asked(self) -> bool:
        """Whether a stop is among what `commands` gives out next; takes nothing of that away."""
        self._receive()
        whole = self._received.split(b"\n")[:-1]
        asked = [record.get("command") for line in whole if (record := from_line(line))]
        return "stop" in asked or self._terminated or (self.supervisor_gone and not self._told_gone)

    def _receive(self) -> None:
        while not self.supervisor_gone:
            try:
                data = self._connection.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            self.supervisor_gone = not data
            self._received += data

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        self._terminated = True


class MemoryChannel:
    """A channel to nobody, for training inside one process: what is sent is kept, what is asked is put in."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        """What was sent, as a reader of the journal would get it (without v, seq and at)."""
        self.waiting: list[str] = []
        """Commands that the next call of `commands` gives out."""
        self.supervisor_gone = False

    def install_sigterm(self) -> None:
        """Nothing: the process is not ours alone."""

    def send(self, kind: str, **fields: Any) -> None:
        self.events.append(json.loads(to_line({"kind": kind, **fields})))

    def stop_is_asked(self) -> bool:
        return "stop" in self.waiting

    def commands(self) -> list[str]:
        commands, self.waiting = self.waiting, []
        return commands
