"""How long the rows are, and what sequence lengths would cut off."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.data.quality.findings import Cut, LengthReport, LengthUnit, Place

_USUAL_LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_BARS = 20
_LONGEST_SHOWN = 3


def length_report(
    lengths: NDArray[np.int32],
    is_divided: NDArray[np.bool_],
    unit: LengthUnit,
    sequence_length: int,
    place: Callable[[int], Place],
) -> LengthReport:
    """`lengths` (rows,); rows in `is_divided` are learnt in parts, so that nothing of them is cut off."""
    if not len(lengths):
        return LengthReport(unit, 0.0, 0, 0, 0, 0, (0, 1), (0,), (), ())
    median, p90, p99 = (int(each) for each in np.percentile(lengths, (50, 90, 99), method="nearest"))
    edges, counts = _histogram(lengths, p99)
    longest = np.argsort(-lengths, kind="stable")[:_LONGEST_SHOWN].tolist()
    return LengthReport(
        unit=unit,
        mean=float(lengths.mean()),
        median=median,
        p90=p90,
        p99=p99,
        maximum=int(lengths.max()),
        edges=edges,
        counts=counts,
        cuts=tuple(_cuts(lengths, is_divided, sequence_length)) if unit == "tokens" else (),
        longest=tuple(place(row) for row in longest),
    )


def _histogram(lengths: NDArray[np.int32], p99: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bars of one round width that show 99 % of the rows; the last holds all that are longer."""
    shortest, longest = int(lengths.min()), int(lengths.max())
    width = _round_up(max(1, (p99 - shortest) // (_BARS - 2) + 1))
    first = shortest // width
    bars = min(_BARS, longest // width - first + 1)
    counts = np.bincount(np.minimum(lengths // width - first, bars - 1), minlength=bars)
    edges = [width * (first + bar) for bar in range(bars)]
    return (*edges, max(width * (first + bars), longest + 1)), tuple(counts.tolist())


def _round_up(width: int) -> int:
    """To the next of 1, 2, 5, 10, 20, 50 ..."""
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power >= width:
                return step * power
        power *= 10


def _cuts(lengths: NDArray[np.int32], is_divided: NDArray[np.bool_], sequence_length: int) -> list[Cut]:
    whole = lengths[~is_divided].astype(np.int64)
    total = max(1, int(lengths.sum(dtype=np.int64)))
    cuts = []
    for length in sorted({*_USUAL_LENGTHS, sequence_length}):
        over = whole[whole > length]
        cuts.append(Cut(length, len(over), float((over - length).sum() / total)))
        if not len(over) and length >= sequence_length:
            break
    return cuts
