"""Small things that took long to find out, kept for the next time: JSON files that may be deleted at any moment."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from engine.home import cache_root
from engine.run.durable_files import write_atomically
from profiles.bounded_files import read_bytes
from profiles.problem import Problem

# Far more than anything that is kept has, which is kilobytes.
_MOST_BYTES = 1 << 24


def read_cached(name: str) -> dict[str, Any] | None:
    """What was kept under `name` ("shapes/1a2b3c"); None when there is nothing, or nothing that can be read."""
    try:
        # A sealed process that was taken over may have put anything there: a pipe would be waited for.
        value = json.loads(read_bytes(cache_root() / f"{name}.json", _MOST_BYTES))
    except (Problem, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_cached(name: str, value: dict[str, Any]) -> None:
    """Keep `value` under `name`. A disk that is full or read-only costs the next caller time, and nothing else."""
    path = cache_root() / f"{name}.json"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(value).encode())
