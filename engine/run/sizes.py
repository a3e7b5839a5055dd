"""Numbers of bytes in the sentences that the engine writes, as the app writes them."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(count: float) -> str:
    """A number of bytes as "7.9 GiB": one decimal below 100 of a unit, none from there on."""
    unit = 0
    while abs(count) >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.{1 if unit and abs(count) < 99.95 else 0}f} {_UNITS[unit]}"
