"""Readings of the devices for the journal: taken once a second in a thread of their own, passed on when they differ."""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import Any

_PERIOD_SECONDS = 1.0
# What a gauge on a screen would show as a change. Finer steps would fill the journal with noise.
_STEPS = {"cpu_share": 0.02, "share": 0.02, "watts": 5.0, "celsius": 1.0, "disk_free_bytes": float(1 << 28)}
_TOTAL_OF = {
    "memory_used_bytes": "memory_total_bytes",
    "worker_bytes": "memory_total_bytes",
    "used_bytes": "total_bytes",
}
_STEPS_IN_TOTAL = 256


class DeviceFeed:
    """The newest readings, for a loop that waits on `fileno`. A driver that hangs stops the readings, nothing else."""

    def __init__(self, folder: Path):
        """For the devices of this machine and the disk of `folder`; `follow` begins to read."""
        self._folder = folder
        self._worker_pid: int | None = None
        self._reading = False
        self._queue: queue.SimpleQueue[dict[str, Any] | str] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def follow(self, worker_pid: int | None) -> None:
        """From now on read the devices, and what this worker takes of them, if there is one."""
        self._worker_pid = worker_pid
        if not self._reading:
            self._reading = True
            threading.Thread(target=self._run, daemon=True, name="devices").start()

    def fileno(self) -> int:
        """A descriptor that is readable while there are readings to take."""
        return self._wake

    def take(self) -> list[dict[str, Any] | str]:
        """The readings since the last call; a text says why there will be no more."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return []
        readings = []
        while not self._queue.empty():
            readings.append(self._queue.get())
        return readings

    def _run(self) -> None:
        shown: dict[str, Any] | None = None
        try:
            from profiles.hardware import DeviceSampler  # here: what it imports takes long to load

            sampler = DeviceSampler(self._worker_pid, self._folder)
            while True:
                sampler.worker_pid = self._worker_pid
                reading = sampler.sample()
                if shown is None or looks_different(reading, shown):
                    shown = reading
                    self._pass_on(reading)
                threading.Event().wait(_PERIOD_SECONDS)
        except Exception as error:
            # Whatever a driver does, training goes on without readings; the journal says so.
            self._pass_on(f"no more readings of the devices: {type(error).__name__}: {error}")

    def _pass_on(self, reading: dict[str, Any] | str) -> None:
        self._queue.put(reading)
        os.eventfd_write(self._wake, 1)


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
