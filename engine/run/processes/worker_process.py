"""The training worker as its supervisor sees it: a sealed child with a channel, and a watch over its silences."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.modules import module_command, module_environment
from engine.run.directory import RunDirectory
from engine.run.endings.adjusted import ADJUSTED_VARIABLE, ANYWAY_VARIABLE
from engine.run.processes.channel import CHANNEL_VARIABLE
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.leash import SUPERVISOR_VARIABLE
from engine.run.sealing.level import SOCKETS
from engine.run.sealing.lines import SealLines
from engine.run.sealing.trial import Prepared
from engine.run.telemetry.records import from_line, to_line
from engine.run.watching.stacks import STACKS_VARIABLE, Stacks
from engine.run.watching.stall import StallWatch
from engine.seal.sealing import start_sealed

COMMAND_VARIABLE = "FINETUI_WORKER_COMMAND"
"""An environment variable with the command to run in place of the trainer, for tests; the run's path is added."""

_MESSAGE_BYTES = 1 << 24
# Of 64 KiB each: as much as a Unix socket holds.
_MOST_READS = 4
# It is told of in sentences and logs.
_KIND = re.compile(r"[a-z_]{1,40}")
# As if the worker held half of the machine's memory more than it does; the kernel's scale ends at 1000.
_OOM_SCORE_ABOVE_OURS, _MOST_OOM_SCORE = 500, 1000


@dataclass(frozen=True, slots=True)
class Message:
    """One line of a worker's; `record` is None for what is no message."""

    record: dict[str, Any] | None
    size_bytes: int


class WorkerProcess:
    """A started worker, in a process group of its own, with its output in engine.log."""

    def __init__(self, run: RunDirectory, adjusted: Mapping[str, Any], prepared: Prepared, *, anyway: bool = False):
        """Start it, with the fields that the ladder changed in `adjusted`, sealed as `prepared`; `anyway` has it go on
        though things changed since the checkpoint. Raises SealRefused, OSError."""
        command = shlex.split(os.environ.get(COMMAND_VARIABLE, "")) or module_command("engine.train.worker")
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._stacks = Stacks()
        environment = module_environment()
        environment |= {
            CHANNEL_VARIABLE: str(theirs.fileno()),
            STACKS_VARIABLE: str(self._stacks.fileno()),
            SUPERVISOR_VARIABLE: str(os.getpid()),
            ADJUSTED_VARIABLE: json.dumps(dict(adjusted)),
            ANYWAY_VARIABLE: "1" if anyway else "",
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
        }
        environment |= {"NO_COLOR": "1", "TERM": "dumb"}  # its output is a file
        self.seal_lines = lines = SealLines()
        """Hear what tries to get out of the worker's seal."""
        if prepared.level != "off":
            environment |= lines.variables
        try:
            self._process, self.seal = start_sealed(
                [*command, str(run.path)],
                prepared.places,
                prepared.level,
                pass_fds=[theirs.fileno(), self._stacks.fileno(), lines.guard_descriptor],
                sockets=SOCKETS,
                refusals=lines.refusals_descriptor,
                env=environment,
                cwd=run.path,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            self._channel.close()
            self._stacks.close()
            lines.close()
            raise
        finally:
            theirs.close()
            lines.started()
        self.pid = self._process.pid
        self.identity = ProcessIdentity.of(self.pid)
        self._pidfd = os.pidfd_open(self.pid)
        self._channel.setblocking(False)
        self._unfinished = bytearray()
        self._lines: deque[bytes] = deque()
        self.received_bytes = 0
        """All that came by the channel so far."""
        self.closed = False
        """Whether the worker has closed its end of the channel; its process may still be ending."""
        self.watch = StallWatch(self.pid, self._stacks)
        """Notices when the worker falls silent."""
        self._be_killed_first()

    @property
    def channel_descriptor(self) -> int:
        """Readable when `messages` has something, or the worker has closed its end."""
        return self._channel.fileno()

    @property
    def end_descriptor(self) -> int:
        """Readable once the worker has ended."""
        return self._pidfd

    def messages(self) -> Iterator[Message]:
        """What the worker sent, without waiting; of very much the first part. Who leaves off in between gets the rest
        by the next call."""
        if not self._lines:
            self._receive()
        while self._lines:
            line = self._lines.popleft()
            record = from_line(line)
            if record is None or not _is_kind(record.get("kind")):
                yield Message(None, len(line))
            else:
                self.watch.heard(record)
                yield Message(record, len(line))

    @property
    def has_more(self) -> bool:
        """Whether `messages` has something that the channel's descriptor does not tell of any more."""
        return bool(self._lines)

    def _receive(self) -> None:
        for _ in range(_MOST_READS):
            try:
                data = self._channel.recv(1 << 16)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            self.received_bytes += len(data)
            first, *others = data.split(b"\n")
            self._unfinished += first
            for part in others:
                self._lines.append(bytes(self._unfinished))
                self._unfinished = bytearray(part)
            if not data or len(self._unfinished) > _MESSAGE_BYTES:
                self._lines.append(bytes(self._unfinished))
                self._unfinished = bytearray()
            if not data:
                self.closed = True
                break
        self._lines = deque(filter(None, self._lines))

    def send(self, command: str) -> bool:
        """Pass a command on; False when the worker does not take in commands any more."""
        try:
            return self._channel.send(to_line({"command": command})) > 0
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False

    def terminate(self) -> None:
        """Ask the worker to stop by a signal, which it takes for the command."""
        # The number is the worker's until `wait`, even once it has ended.
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the worker and all that it started, at once."""
        self._process.kill()

    def wait(self) -> int:
        """Clean up after a worker that has ended, with what it left running; its exit status, or minus its signal."""
        status = self._process.wait()
        os.close(self._pidfd)
        self._channel.close()
        self._stacks.close()
        self.seal_lines.close()
        return status

    def _be_killed_first(self) -> None:
        """Have the kernel, when memory runs out, end the worker or what it starts, and leave the supervisor to tell and
        whoever is logged in to read it."""
        ours = Path("/proc/self/oom_score_adj")
        with suppress(OSError):  # not allowed everywhere
            score = min(_MOST_OOM_SCORE, int(ours.read_text()) + _OOM_SCORE_ABOVE_OURS)
            Path(f"/proc/{self.pid}/oom_score_adj").write_text(str(score))


def _is_kind(value: Any) -> bool:
    return isinstance(value, str) and _KIND.fullmatch(value) is not None
