"""Progress of a command that works through bytes, on its output."""

from __future__ import annotations

from collections.abc import Callable

from tui.commands.output import Output
from tui.format import bytes_of_text


def progress_on(output: Output) -> Callable[[str, int, int], None]:
    """Takes what is being done in words, and the bytes that are done, of how many: drawn over on a terminal; elsewhere
    a line for each thing that is done."""
    told = ""

    def progress(detail: str, done_bytes: int, total_bytes: int) -> None:
        nonlocal told
        if output.live:
            output.status(f"{detail} {bytes_of_text(done_bytes, total_bytes)}" if total_bytes else detail)
        elif detail != told:
            output.line(detail)
        told = detail

    return progress


def no_progress(detail: str, done_bytes: int, total_bytes: int) -> None:
    """For a command that prints JSON."""
