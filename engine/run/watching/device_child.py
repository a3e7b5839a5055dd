"""The process that reads the devices: `python -m engine.run.watching.device_child FOLDER SUPERVISOR_PID`.

A process of its own, since a driver may hang for ever, or crash whoever asks it. One JSON object a line on stdout, once
a second: {"device": fields of a `device` event, "slowed": [[device, reason, celsius]], "lost": [GPU numbers]}. Stdin
has the worker's pid on a line whenever that changes, 0 for none; the process ends when stdin does.
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

from engine.child_process import end_with
from engine.run.telemetry.records import to_line
from profiles.hardware import DeviceSampler

_PERIOD_SECONDS = 1.0


def main(folder: str, parent: str) -> None:
    end_with(int(parent))
    sampler = DeviceSampler(None, Path(folder))
    asked = select.poll()
    asked.register(0, select.POLLIN)
    due = time.monotonic()
    while True:
        if asked.poll(max(0.0, due - time.monotonic()) * 1000):
            if not (pids := os.read(0, 4096).split()):
                return
            sampler.worker_pid = int(pids[-1]) or None
            continue
        due = time.monotonic() + _PERIOD_SECONDS
        reading = sampler.sample()
        slowed = [astuple(slowdown) for slowdown in sampler.slowdowns()]
        os.write(1, to_line({"device": reading, "slowed": slowed, "lost": sampler.lost_gpus()}))


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # the supervisor is gone
        main(*sys.argv[1:])
