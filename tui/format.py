"""How numbers look, the same in the app and in the commands. "-" stands for what is not known (yet)."""

from __future__ import annotations

import datetime
import math

UNKNOWN = "-"
BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def bytes_text(count: float | None) -> str:
    """A number of bytes as "7.9 GiB": one decimal below 100 of a unit, none from there on."""
    if count is None:
        return UNKNOWN
    unit = _byte_unit(count)
    return f"{_in_unit(count, unit)} {BYTE_UNITS[unit]}"


def bytes_of_text(used_bytes: float | None, total_bytes: float) -> str:
    """Used out of total in the total's unit, which is written once: "7.9 of 24.0 GiB"."""
    unit = _byte_unit(total_bytes)
    used = UNKNOWN if used_bytes is None else _in_unit(used_bytes, unit)
    return f"{used} of {_in_unit(total_bytes, unit)} {BYTE_UNITS[unit]}"


def count_text(count: float | None) -> str:
    """A whole number with thousands set apart: "1,200"."""
    return UNKNOWN if count is None else f"{round(count):,}"


def compact_text(count: float | None) -> str:
    """A large count in three figures or so: "950", "12.4 k", "1.9 M", "8.0 B"."""
    if count is None:
        return UNKNOWN
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        # 999,500 would round to "1000 k"; it is written in the next unit.
        if abs(count) >= size * 0.9995 and abs(count) >= 1000:
            scaled = count / size
            return f"{scaled:.0f} {unit}" if abs(scaled) >= 99.95 else f"{scaled:.1f} {unit}"
    return f"{round(count)}"


def duration_text(seconds: float | None) -> str:
    """A span of time in one or two units: "42 s", "18 min", "2 h 05 min", "3 d 4 h"."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes_over = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes_over:02} min"
    days, hours_over = divmod(round(minutes / 60), 24)
    return f"{days} d {hours_over} h"


def rate_text(per_second: float | None, unit: str = "tok/s") -> str:
    """A speed with its unit: "3,080 tok/s", "4.2 tok/s"."""
    if per_second is None or not math.isfinite(per_second):
        return UNKNOWN
    return f"{per_second:.1f} {unit}" if per_second < 9.95 else f"{round(per_second):,} {unit}"


def loss_text(loss: float | None, missing: str = UNKNOWN) -> str:
    """A loss or gradient norm to three decimals; `missing` where there is none ("nan" if it is no number)."""
    if loss is None:
        return missing
    return f"{loss:.3f}" if abs(loss) < 1000 else f"{loss:.3g}"


def learning_rate_text(rate: float | None) -> str:
    """A learning rate as "2.0e-4"."""
    if rate is None:
        return UNKNOWN
    mantissa, _, exponent = f"{rate:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if rate else "0"


def share_text(share: float | None) -> str:
    """A share between 0 and 1 in percent: "94.5 %", "100 %", "0.04 %"."""
    if share is None:
        return UNKNOWN
    percent = round(share * 100, 6)  # 0.07 * 100 is not 7
    if 0 < percent < 0.1:
        return f"{percent:.1g} %"
    return f"{percent:.0f} %" if percent == round(percent) else f"{percent:.1f} %"


def difference_text(found: float, expected: float) -> str:
    """By how much a figure differs from the one expected: "+0.3 %"; never "-0.0 %"."""
    return f"{round((found / max(1, expected) - 1) * 100, 1) + 0.0:+.1f} %"


def steps_text(step: int, planned_steps: int | None) -> str:
    """Steps taken out of those planned: "412/1,200"."""
    return f"{step:,}/{planned_steps:,}" if planned_steps else f"{step:,}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun: "1 row", "4,812 rows"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def ordinal_text(number: int) -> str:
    """ "1st", "2nd", "11th"."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def moment_text(unix_seconds: float | None) -> str:
    """A moment in local time to the minute: "2026-03-01 14:02"; unknown where no calendar has it."""
    if unix_seconds is None:
        return UNKNOWN
    try:
        return datetime.datetime.fromtimestamp(unix_seconds).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return UNKNOWN


def _byte_unit(count: float) -> int:
    unit = 0
    # 1023.96 KiB would be written "1024 KiB"; it is written "1.0 MiB".
    while abs(count) >= 1023.5 * 1024**unit and unit < len(BYTE_UNITS) - 1:
        unit += 1
    return unit


def _in_unit(count: float, unit: int) -> str:
    scaled = count / 1024**unit
    if unit == 0:
        return f"{scaled:.0f}"
    return f"{scaled:.0f}" if abs(scaled) >= 99.95 else f"{scaled:.1f}"
