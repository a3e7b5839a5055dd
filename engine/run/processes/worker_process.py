"""The training worker as its supervisor sees it: a child with a channel, and what its end means."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.modules import module_command, module_environment
from engine.run.directory import RunDirectory
from engine.run.endings.adjusted import ADJUSTED_VARIABLE, ANYWAY_VARIABLE
from engine.run.processes.channel import CHANNEL_VARIABLE
from engine.run.processes.identity import ProcessIdentity
from engine.run.telemetry.records import from_line, to_line

COMMAND_VARIABLE = "FINETUI_WORKER_COMMAND"
"""An environment variable with the command to run in place of the trainer, for tests; the run's path is added."""

_MESSAGE_BYTES = 1 << 24
# The line that names a fault, in a traceback and in what Python prints when native code crashed. Threads and
# libraries often print more after it.
_FAULT = re.compile(r"Fatal Python error|[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)(:|$)")


class WorkerProcess:
    """A started worker, in a process group of its own, with its output in engine.log."""

    def __init__(self, run: RunDirectory, adjusted: Mapping[str, Any], *, anyway: bool = False):
        """Start it, with the fields that the ladder changed in `adjusted`; `anyway` has it go on though things changed
        since the checkpoint. Raises OSError."""
        command = shlex.split(os.environ.get(COMMAND_VARIABLE, "")) or module_command("engine.train.worker")
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        environment = module_environment()
        environment |= {
            CHANNEL_VARIABLE: str(theirs.fileno()),
            ADJUSTED_VARIABLE: json.dumps(dict(adjusted)),
            ANYWAY_VARIABLE: "1" if anyway else "",
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
        }
        environment |= {"NO_COLOR": "1", "TERM": "dumb"}  # its output is a file
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(run.path)],
                cwd=run.path,
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.identity = ProcessIdentity.of(self.pid)
        self._pidfd = os.pidfd_open(self.pid)
        self._channel.setblocking(False)
        self._received = b""
        self.closed = False
        """Whether the worker has closed its end of the channel; its process may still be ending."""
        # When memory runs out the kernel should end the worker and leave the supervisor to tell. Not always allowed.
        with suppress(OSError):
            Path(f"/proc/{self.pid}/oom_score_adj").write_text("500")

    @property
    def channel_descriptor(self) -> int:
        """Readable when `messages` has something, or the worker has closed its end."""
        return self._channel.fileno()

    @property
    def end_descriptor(self) -> int:
        """Readable once the worker has ended."""
        return self._pidfd

    def messages(self) -> Iterator[dict[str, Any] | bytes]:
        """What the worker sent since the last call, without waiting; what is no message comes as its bytes."""
        while True:
            try:
                data = self._channel.recv(1 << 16)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            *lines, self._received = (self._received + data).split(b"\n")
            if not data or len(self._received) > _MESSAGE_BYTES:
                lines, self._received = [*lines, self._received], b""
            for line in filter(None, lines):
                record = from_line(line)
                yield record if record is not None and isinstance(record.get("kind"), str) else line
            if not data:
                self.closed = True
                return

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
        # The group's number is the worker's pid, which cannot be taken by another before `wait`.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Clean up after a worker that has ended, with what it left running; its exit status, or minus its signal."""
        self.kill()
        status = self._process.wait()
        os.close(self._pidfd)
        self._channel.close()
        return status


def exit_sentence(status: int, log: list[str]) -> str:
    """Why a worker ended that did not say why itself, from its exit status and the last lines it printed."""
    telling = [line for line in log if _FAULT.match(line)] or log
    last = f": {telling[-1]}" if telling else ""
    if status == -signal.SIGKILL:
        return "the worker was killed from outside, often by the kernel when memory ran out"
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"the worker was ended by {name}{last}"
    if status == 0:
        return f"the worker ended without saying why{last}"
    return f"the worker failed with exit status {status}{last}"
