"""The end of engine.log, as text that is safe to show: what the libraries printed last."""

from __future__ import annotations

import os
from pathlib import Path

from profiles.problem import printable

ATTEMPT_MARK = "--- attempt "
"""How the line begins that the supervisor puts between the attempts of a run."""


def lines_of_attempt(path: Path) -> list[str]:
    """What was printed in the newest attempt, as far as `last_lines` goes back. A log may be deleted or cut short at
    any time, so it is told by the mark in it and not by a place."""
    lines = last_lines(path, count=500)
    marks = [index for index, line in enumerate(lines) if line.startswith(ATTEMPT_MARK)]
    return lines[marks[-1] + 1 :] if marks else lines


def last_lines(path: Path, count: int = 20, limit_bytes: int = 1 << 16) -> list[str]:
    """At most `count` last lines that are not blank, without control characters; empty when there is no log. Of a
    progress bar, drawn over itself, its last state. Raises OSError."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - limit_bytes))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [printable(line, 2000) for line in lines if line][-count:]
