"""The end of engine.log, as text that is safe to show: what the libraries printed last."""

from __future__ import annotations

import os
from pathlib import Path

from profiles.problem import printable

ATTEMPT_MARK = "--- attempt "
"""How the line begins that the supervisor puts between the attempts of a run."""


def last_lines(path: Path, count: int = 20, start: int = 0, limit_bytes: int = 1 << 16) -> list[str]:
    """At most `count` last lines that are not blank, from byte `start` of the log on, without control characters;
    empty when there is no log. Of a progress bar, drawn over itself, its last state. Raises OSError."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - limit_bytes))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [printable(line, 2000) for line in lines if line][-count:]
