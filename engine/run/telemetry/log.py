"""The end of engine.log, as text that is safe to show: what the libraries printed last."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from profiles.problem import printable

_MOST_BYTES, _KEPT_BYTES = 1 << 26, 1 << 20

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


def cut_middle(descriptor: int) -> None:
    """Of a log that outgrew what anybody reads (64 MiB), leave the first and the last MiB, and between them a line that
    says so. `descriptor` appends to it, as those of all who write to it must. Lines that are written just then may be
    lost with the rest; raises nothing: a log that cannot be cut stays as it is, and anything but a plain file too."""
    with suppress(OSError):
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size <= _MOST_BYTES:
            return
        # By the kernel's own link, since the file may have lost its name.
        reader = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            end = os.pread(reader, _KEPT_BYTES, status.st_size - _KEPT_BYTES)
        finally:
            os.close(reader)
        os.ftruncate(descriptor, _KEPT_BYTES)
        left_out = status.st_size - 2 * _KEPT_BYTES
        mark = f"\n--- {left_out:,} bytes of this log were left out: it had grown too long ---\n"
        os.write(descriptor, mark.encode() + end)
