"""Spans of time in the sentences that the engine writes, as the app writes them."""

from __future__ import annotations


def seconds_text(seconds: float) -> str:
    """A time as "0.4 s", "90 s", "12 min" or "2 h 05 min"."""
    if seconds < 99.5:
        return f"{seconds:.{1 if seconds < 9.95 else 0}f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02} min"
