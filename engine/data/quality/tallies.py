"""Counts by value, the most frequent first."""

from __future__ import annotations

from collections.abc import Mapping

from engine.data.quality.findings import Tally

_VALUES_SHOWN = 20


def tally(name: str, counts: Mapping[str, int]) -> Tally:
    """`counts` as a Tally; "" counts what has more different values than are kept apart."""
    ordered = sorted(((value, count) for value, count in counts.items() if value), key=lambda pair: (-pair[1], pair[0]))
    shown, rest = tuple(ordered[:_VALUES_SHOWN]), ordered[_VALUES_SHOWN:]
    uncounted = counts.get("", 0)
    return Tally(
        name=name,
        values=shown,
        others=sum(count for _, count in rest) + uncounted,
        distinct=len(ordered) + bool(uncounted),
        rows=sum(counts.values()),
    )
