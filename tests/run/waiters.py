"""Engines that only wait in line: each takes its place, trains for a moment once it is its turn, and ends.

python waiters.py LOG SECONDS NAME [NAME ...]

The runs called NAME join one after the other, with a clock that goes back each time; the free RAM is that of
supervise.py. LOG gets a line for each start and end, and this process ends after the last.
"""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace

from supervise import read_hardware

from engine.run.directory import RunDirectory, runs_root
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.recorded import record_processes
from engine.run.processes.taking import take_run
from engine.run.start import Start
from engine.run.waiting import queue, room
from engine.run.waiting.claims import drop_claim


def wait_and_train(run: RunDirectory, log: int, seconds: float, joined: int, since: float) -> None:
    queue.time = SimpleNamespace(time=lambda: since, monotonic=time.monotonic)
    take_run(run)
    place = queue.PlaceInLine(run, run.spec(), Start(queue=True))
    record_processes(run, {"supervisor": ProcessIdentity.of(os.getpid())})
    os.write(joined, b".")
    while not place.look()[0]:
        time.sleep(0.01)
    os.write(log, f"start {run.name}\n".encode())
    time.sleep(seconds)
    os.write(log, f"end {run.name}\n".encode())
    drop_claim(run)


def main(log_path: str, seconds: str, *names: str) -> None:
    queue.read_hardware = read_hardware
    queue.LOOK_SECONDS = 0.05
    room._ram_holders = lambda ours: []  # the processes of the whole machine, at each of a thousand looks
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, name in enumerate(names):
        reader, writer = os.pipe()
        if not os.fork():
            status = 1
            try:
                wait_and_train(RunDirectory(runs_root() / name), log, float(seconds), writer, 2e9 - number)
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        assert os.read(reader, 1), f"{name} did not join"
        os.close(reader)
    print("all joined", flush=True)
    for _ in names:
        os.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
