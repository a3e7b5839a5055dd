"""Waiting for what other processes do, and reading what they wrote."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from engine.run.directory import RunDirectory


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true value of `condition`, asked again and again; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.02)
    return value


def events_of(run: RunDirectory) -> list[dict[str, Any]]:
    # What is written just now may be there in part.
    return [json.loads(line) for line in run.events_path.read_bytes().split(b"\n")[:-1]]


def end_of(run: RunDirectory) -> dict[str, Any]:
    """The end event, waited for."""
    return wait_until(lambda: next((event for event in events_of(run) if event["kind"] == "end"), None))
