"""A program on a pty of its own, with this process as its terminal: it draws what comes, counts it, and types."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import pyte

# What Textual asks a terminal at its start, and what kitty, WezTerm or tmux answer: it then draws in whole frames.
_ANSWERS = {
    b"\x1b[?2026$p": b"\x1b[?2026;2$y",
    b"\x1b[?2048$p": b"\x1b[?2048;0$y",
    b"\x1b[c": b"\x1b[?62;c",
    b"\x1b[6n": b"\x1b[1;1R",
}

# The first thing in the new session makes the pty its terminal, so that a hang-up or Ctrl+Z works as in real life.
_OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)


class PtyApp:
    """Runs `command` on a new terminal of `columns` x `rows`; a context manager that ends it."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        columns: int = 80,
        rows: int = 24,
        own: bool = True,
    ):
        """Where the terminal is not to be the program's `own`, it is sent no signals by it."""
        self.started_at = time.perf_counter()
        self.master, slave = pty.openpty()
        self._set_size(columns, rows)
        variables = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
        kept = {
            name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TMUX", "COLUMNS", "LINES")
        }

        self.process = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL, *command] if own else list(command),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**kept, **variables, **(environment or {})},
            start_new_session=True,
        )
        os.close(slave)
        self._poll = select.poll()
        self._poll.register(self.master, select.POLLIN)
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.written = bytearray()
        """All bytes that came, in order."""

    def __enter__(self) -> PtyApp:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)

    @property
    def text(self) -> str:
        """What the terminal shows."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def seconds_since_start(self) -> float:
        return time.perf_counter() - self.started_at

    def pump(self, seconds: float) -> int:
        """Be the terminal for so long; returns the bytes that came."""
        before, until = len(self.written), time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if not self._read(left):
                break
        return len(self.written) - before

    def wait_for(self, condition: str | Callable[[], bool], seconds: float = 60) -> None:
        """Be the terminal until a text is shown or `condition()` holds; fails after `seconds`."""
        holds = (lambda: condition in self.text) if isinstance(condition, str) else condition
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, f"waited for {condition!r}; the terminal shows:\n{self.text}"
            assert self._read(0.05) or holds(), f"the app ended, waiting for {condition!r}:\n{self.text}"

    def wait_until_quiet(self, quiet_seconds: float = 0.5, seconds: float = 60) -> None:
        """Be the terminal until nothing was written for `quiet_seconds`."""
        until = time.monotonic() + seconds
        while self.pump(quiet_seconds):
            assert time.monotonic() < until, "the app never stops writing"

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size, as a person does by dragging its corner."""
        self.screen.resize(rows, columns)
        self._set_size(columns, rows)
        os.killpg(self.process.pid, signal.SIGWINCH)

    def wait_for_exit(self, seconds: float = 60) -> int:
        """Be the terminal until the program has ended; returns its status."""
        until = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < until, f"it did not end; the terminal shows:\n{self.text}"
            self._read(0.05)
        self.pump(0.2)
        return self.process.returncode

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self, seconds: float) -> bool:
        """One reading; False once the other end is closed."""
        if not self._poll.poll(min(seconds, 0.05) * 1000):
            return True
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:  # EIO: the program closed its terminal
            return False
        self.written += data
        # pyte does not know kitty's keyboard requests and would print their tails.
        self._stream.feed(_without_private(data))
        for question, answer in _ANSWERS.items():
            if question in data:
                os.write(self.master, answer)
        return bool(data)


def _without_private(data: bytes) -> bytes:
    for sequence in (b"\x1b[>1u", b"\x1b[<u", b"\x1b[?2026$p", b"\x1b[?2048$p"):
        data = data.replace(sequence, b"")
    return data
