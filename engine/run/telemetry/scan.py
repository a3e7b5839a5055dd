"""Which lines of a long journal tell something: found by looking at bytes, so that a million steps open in a moment.

Parsing every line takes several times as long. Left out are steps that the loss curve would drop anyway (see series.py)
and readings of the devices other than the newest. Journals of another writer, with the fields in another order, and
stretches where something is unusual (a resume, a torn line) are handed over whole: slower, not different. One thing may
be: where a resume took up again, the curve can lack an extreme that one the resume undid had outdone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import cast

_STEP = b'"kind":"step","step":'
_ATTEMPT = b'"kind":"attempt"'
_DEVICE = b'"kind":"device"'
_TOTALS = b'"training_seconds":'
_LOSS_AND_NORM = re.compile(rb'"loss":([^,]+),"learning_rate":[^,]+,"gradient_norm":([^,]+),')
_TOKENS_AND_SECONDS = re.compile(rb'"tokens":(\d+),"seconds":([^,}]+)')
_OTHER_KIND = re.compile(rb'"kind":"(?!step"|device")')
# With shorter spans most steps are told, and parsing them all costs less than choosing.
_LEAST_STRIDE = 16


def first_step(chunk: bytes) -> int | None:
    """The number of the first step in `chunk`, if there is one."""
    place = chunk.find(_STEP)
    return _step_number(chunk, place) if place >= 0 else None


def telling_lines(chunk: bytes, stride: int, recent_from: int) -> tuple[list[bytes], int, float]:
    """What of `chunk` (whole lines of a journal) a fold must see: the lines, and the tokens and seconds of the steps
    left out, where no line tells the totals. The fold's curve keeps the extremes of every `stride` steps; its pace
    is that of the steps from `recent_from` on."""
    lines = chunk.count(b"\n")
    first_place, attempt = chunk.find(_STEP), chunk.rfind(_ATTEMPT)
    if stride >= _LEAST_STRIDE and chunk.count(b"}\n") == lines and (attempt < 0 or attempt < first_place):
        others = [match.start() for match in _OTHER_KIND.finditer(chunk)]
        steps = _telling_steps(chunk, stride, recent_from, lines - len(others) - chunk.count(_DEVICE))
        if steps is not None:
            # With the newest reading of the devices, and the last line for its time and number.
            places = [*others, *steps[0], len(chunk) - 2, max(0, chunk.rfind(_DEVICE))]
            starts = sorted({chunk.rfind(b"\n", 0, place) + 1 for place in places})
            return [chunk[start : chunk.index(b"\n", start)] for start in starts], steps[1], steps[2]
    return [line for line in chunk.split(b"\n") if line], 0, 0.0


def _telling_steps(chunk: bytes, stride: int, recent_from: int, count: int) -> tuple[list[int], int, float] | None:
    """Where in `chunk`, which has `count` steps, those stand that the curve may keep, with the tokens and seconds
    of the others; None when they do not follow one another, or are not written, as usual."""
    pairs = _LOSS_AND_NORM.findall(chunk)
    if len(pairs) != count:
        return None
    if not pairs:
        return [], 0, 0.0
    oldest, newest = chunk.find(_STEP), chunk.rfind(_STEP)
    first, last = _step_number(chunk, oldest), _step_number(chunk, newest)
    if first is None or last is None or last - first + 1 != count:
        return None
    losses, norms = (_numbers(column) for column in zip(*pairs, strict=True))
    wanted = {0, *range(max(0, recent_from - first), count)}
    start = 0
    while start < count:
        end = min(count, ((first + start) // stride + 1) * stride - first)
        wanted |= _extremes(losses[start:end], norms[start:end], start)
        start = end
    places = []
    for index in sorted(wanted):
        mark = b"%s%d," % (_STEP, first + index)
        # Lines are about equally long, so look from a little before the place where it should be.
        place = chunk.find(mark, max(0, len(chunk) * index // count - len(chunk) // 64))
        if place < 0 and (place := chunk.find(mark)) < 0:
            return None
        places.append(place)
    if all(_TOTALS in chunk[place : chunk.index(b"\n", place)] for place in (oldest, newest)):
        return places, 0, 0.0
    work = _TOKENS_AND_SECONDS.findall(chunk)
    if len(work) != count or _TOTALS in chunk:
        return None
    tokens, seconds = (_numbers(column) for column in zip(*work, strict=True))
    untold = [index for index in range(count) if index not in wanted]
    return places, sum(int(tokens[index] or 0) for index in untold), sum(seconds[index] or 0.0 for index in untold)


def _step_number(chunk: bytes, place: int) -> int | None:
    number = chunk[place + len(_STEP) : place + len(_STEP) + 20].partition(b",")[0]
    return int(number) if number.isdigit() else None


def _numbers(column: Sequence[bytes]) -> list[float | None]:
    return json.loads(b"[" + b",".join(column) + b"]")


def _extremes(losses: list[float | None], norms: list[float | None], offset: int) -> set[int]:
    """Where one span has what series.extremes keeps; indices count from `offset`."""
    chosen = set()
    if None in losses:
        chosen.add(offset + losses.index(None))
    if numbers := _without_gaps(losses):
        chosen |= {offset + losses.index(min(numbers)), offset + losses.index(max(numbers))}
    if numbers := _without_gaps(norms):
        chosen.add(offset + norms.index(max(numbers)))
    return chosen


def _without_gaps(values: list[float | None]) -> list[float]:
    if None in values:
        return [value for value in values if value is not None]
    return cast(list[float], values)
