"""Readings of the devices for the journal: taken by a child process once a second, passed on when they differ."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.child_process import describe_exit
from engine.modules import module_command, module_environment
from engine.run.telemetry.events import RunState
from engine.run.telemetry.records import from_line
from engine.run.watching.silence import Silence
from engine.run.watching.throttle import ThrottleWatch
from profiles.machine.slowdown import Slowdown
from profiles.problem import printable

# A driver that no process keeps awake takes seconds for its first answer, on a machine of eight GPUs up to half a
# minute.
_PATIENCE_SECONDS = 60.0
# Between the end of a child and the next one; doubled each time, since a driver that hangs may do so for days.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 3600.0
# Readings that went on for so long prove that it works again.
_PROVEN_SECONDS = 600.0
# What a gauge on a screen would show as a change. Finer steps would fill the journal with noise.
_STEPS = {"cpu_share": 0.02, "share": 0.02, "watts": 5.0, "celsius": 1.0, "disk_free_bytes": float(1 << 28)}
_TOTAL_OF = {
    "memory_used_bytes": "memory_total_bytes",
    "worker_bytes": "memory_total_bytes",
    "used_bytes": "total_bytes",
}
_STEPS_IN_TOTAL = 256


Event = tuple[str, dict[str, Any]]
"""Kind and fields."""


class DeviceFeed:
    """The newest readings, for a loop that takes them about once a second. Whatever a driver does, the loop goes on:
    one that hangs or crashes costs the readings, which are told to be missing once and tried again after a while."""

    def __init__(
        self,
        folder: Path,
        *,
        command: Sequence[str] = (),
        patience_seconds: float = _PATIENCE_SECONDS,
        pause_seconds: float = _FIRST_PAUSE_SECONDS,
    ):
        """For the devices of this machine and the disk of `folder`; `follow` begins to read. `command` is run in place
        of the process that reads."""
        self._command = command or module_command("engine.run.watching.device_child", str(folder), str(os.getpid()))
        self._patience_seconds = patience_seconds
        self._worker_pid: int | None = None
        self._child: _Child | None = None
        self._ending: subprocess.Popen[bytes] | None = None
        self._starts_at: float | None = None
        self._first_pause_seconds = self._pause_seconds = pause_seconds
        self._missing = False
        self._shown: dict[str, Any] | None = None
        self._throttling = ThrottleWatch(time.monotonic)
        self.lost: list[str] = []
        """The GPUs that fell off the bus since the feed began, as "GPU 0"."""

    def follow(self, worker_pid: int | None) -> None:
        """From now on read the devices, and what this worker takes of them, if there is one. A device that is slowed
        down is told again: each attempt is."""
        self._worker_pid = worker_pid
        self._throttling = ThrottleWatch(time.monotonic)
        if self._child is not None:
            self._child.follow(worker_pid)
        elif self._starts_at is None:
            self._starts_at = time.monotonic()

    def take(self, state: Callable[[], RunState]) -> list[Event]:
        """The events to journal since the last call, without waiting for any. `state` gives the run's."""
        events: list[Event] = []
        if self._child is None:
            events += self._start()
        if (child := self._child) is None:
            return events
        status = child.process.poll()  # first, so that all that it said before its end is among what is read next
        for record in child.readings():
            events += self._take_reading(child, record, state)
        if status is not None:
            events += self._part(child, f"the process that takes them {describe_exit(status)}")
        elif child.silence.seconds() > self._patience_seconds:
            child.process.kill()
            events += self._part(child, "a driver does not answer")
        return events

    def close(self) -> None:
        """No more readings."""
        if (child := self._child) is not None:
            child.process.kill()
            self._let_go(child)
        self._starts_at = None

    def _start(self) -> Iterator[Event]:
        """Start a child where it is time and the last one is gone: in a driver that hangs it cannot even be killed."""
        if self._ending is not None and self._ending.poll() is not None:
            self._ending = None
        if self._starts_at is None or time.monotonic() < self._starts_at or self._ending is not None:
            return
        try:
            self._child = _Child(self._command)
        except OSError as error:
            yield from self._miss(f"no process could be started: {error.strerror}")
            return
        self._child.follow(self._worker_pid)

    def _take_reading(self, child: _Child, record: Mapping[str, Any], state: Callable[[], RunState]) -> Iterator[Event]:
        if self._missing:
            self._missing = False
            yield "note", {"text": "the devices are read again"}
        if time.monotonic() - child.began_at > _PROVEN_SECONDS:
            self._pause_seconds = self._first_pause_seconds
        reading = record["device"]
        if self._shown is None or looks_different(reading, self._shown):
            self._shown = reading
            yield "device", reading
        for fields in self._throttling.take([Slowdown(*each) for each in record["slowed"]], state()):
            yield "throttle", fields
        for gpu in (f"GPU {number}" for number in record["lost"]):
            if gpu not in self.lost:
                self.lost.append(gpu)
                yield "note", {"text": f"{gpu} has fallen off the bus; a restart of the machine brings it back"}

    def _part(self, child: _Child, why: str) -> Iterator[Event]:
        self._let_go(child)
        yield from self._miss(why)

    def _let_go(self, child: _Child) -> None:
        child.close()
        self._child, self._ending = None, child.process

    def _miss(self, why: str) -> Iterator[Event]:
        """Try again after a while; said once for however many tries."""
        self._starts_at = time.monotonic() + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        if not self._missing:
            self._missing = True
            yield "note", {"text": f"no readings of the devices for now: {printable(why, 200)}; training goes on"}


class _Child:
    """The process that reads, and what it said."""

    def __init__(self, command: Sequence[str]):
        """Raises OSError."""
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=module_environment(), cwd="/"
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._asks, self._answers = self.process.stdin, self.process.stdout
        os.set_blocking(self._answers.fileno(), False)
        os.set_blocking(self._asks.fileno(), False)
        self._received = b""
        self.silence = Silence()
        self.began_at = time.monotonic()

    def follow(self, worker_pid: int | None) -> None:
        with suppress(OSError):  # it ended, or reads nothing any more: both are noticed by its silence
            os.write(self._asks.fileno(), f"{worker_pid or 0}\n".encode())

    def readings(self) -> list[dict[str, Any]]:
        """What it said since the last call, without waiting."""
        with suppress(BlockingIOError):
            while data := os.read(self._answers.fileno(), 1 << 16):
                self._received += data
        *lines, self._received = self._received.split(b"\n")
        records = [record for line in lines if (record := from_line(line)) is not None]
        if records:
            self.silence.end()
        return records

    def close(self) -> None:
        for pipe in (self._asks, self._answers):
            with suppress(OSError):
                pipe.close()


def looks_different(reading: dict[str, Any], shown: dict[str, Any]) -> bool:
    """Whether a gauge that shows `shown` would move for `reading`. Against what is shown and not against the reading
    before, so that a slow drift is seen, and without rounding, so that jitter around a border is not."""
    if reading.keys() != shown.keys():
        return True
    for name, value in reading.items():
        before = shown[name]
        if name == "gpus":
            if len(value) != len(before) or any(map(looks_different, value, before)):
                return True
        elif isinstance(value, int | float) and isinstance(before, int | float):
            step = _STEPS.get(name) or reading.get(_TOTAL_OF.get(name, ""), 0) / _STEPS_IN_TOTAL
            if value != before and abs(value - before) >= step:
                return True
        elif value != before:
            return True
    return False
