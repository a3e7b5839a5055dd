"""Waiting for what other processes do, and reading what they wrote."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.liveness import liveness
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.recorded import recorded_processes


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of `condition`, asked again and again; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.02)
    return value


def events_of(run: RunDirectory) -> list[dict[str, Any]]:
    # What is written just now may be there in part.
    return [json.loads(line) for line in run.events_path.read_bytes().split(b"\n")[:-1]]


def told(run: RunDirectory, kind: str) -> list[dict[str, Any]]:
    """The events of one kind."""
    return [event for event in events_of(run) if event["kind"] == kind]


def end_of(run: RunDirectory) -> dict[str, Any]:
    """The end event, waited for."""
    return wait_until(lambda: next((event for event in events_of(run) if event["kind"] == "end"), None))


def wait_for_end(run: RunDirectory) -> dict[str, Any]:
    """The end event, once the engine is gone as well."""
    end = end_of(run)
    wait_until(lambda: liveness(run) != "live")
    return end


def hold(process: ProcessIdentity) -> None:
    """Have a process stand still until SIGCONT. The signal alone comes whenever its first thread is given a processor,
    and the others go on until then."""
    if process.send(signal.SIGSTOP):
        wait_until(lambda: _stands_still(process.pid) or not process.is_alive())


@contextmanager
def standing_still(process: ProcessIdentity) -> Iterator[None]:
    """The process does nothing within the block, and goes on after it."""
    hold(process)
    try:
        yield
    finally:
        process.send(signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    try:
        lines = [(thread / "stat").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):  # a thread ended meanwhile
        return False
    return all(line.rpartition(")")[2].split()[0] == "T" for line in lines)


def kill_run(run: RunDirectory) -> None:
    """End a run's engine and trainer as a power cut does: neither does anything about the other's end."""
    processes = recorded_processes(run).values()
    for process in processes:
        hold(process)
    for process in processes:
        process.send(signal.SIGKILL)
    for process in processes:
        assert process.wait(60)
