"""Small things that took long to find out, kept for the next time: JSON files that may be deleted at any moment."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.run.directory import home, of_platform
from engine.run.durable_files import write_atomically
from profiles.bounded_files import read_bytes
from profiles.problem import Problem

CACHE_VARIABLE = "FINETUI_CACHE"
"""An environment variable with the cache's folder. Sealed processes have it, since for them XDG_CACHE_HOME, by which
the platform's would be found, is another."""

# Far more than anything that is kept has, which is kilobytes.
_MOST_BYTES = 1 << 24


def cache_root() -> Path:
    """The folder of the cache: FINETUI_CACHE, else under FINETUI_HOME where that is set, else the platform's."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given).expanduser().absolute()
    if os.environ.get("FINETUI_HOME"):
        return home() / "cache"
    return of_platform("cache")


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
