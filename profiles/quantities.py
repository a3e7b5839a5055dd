"""Sizes as people write them: "24GiB", "24 GB", "512 MiB", "8589934592"."""

from __future__ import annotations

import math
import re

from profiles.problem import Problem, printable

# Memory is sold in powers of two whatever the label says: a 24 GB card has 24 GiB, so both mean the same here.
_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_QUANTITY = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?)(?:I?B)?", re.IGNORECASE | re.ASCII)
_LIMIT_BYTES = 1 << 50


def parse_bytes(text: str, where: str) -> int:
    """The bytes that `text` says; `where` names the option or field it came from.

    GB is read as GiB. Raises Problem for anything that is no positive size ("-3", "lots", "0", "1e9").
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise Problem(where, f"is {printable(repr(text))}, which is not a size", 'Write it like "24GiB" or "512MiB".')
    size = float(match["number"]) * _UNITS[match["unit"].upper()]
    if not 1 <= size <= _LIMIT_BYTES or not math.isfinite(size):
        raise Problem(
            where,
            f"is {printable(repr(text))}; it should be between one byte and 1 PiB",
            'Write it like "24GiB" or "512MiB".',
        )
    return round(size)
