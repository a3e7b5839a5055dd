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
from itertools import compress
from typing import cast

from engine.run.telemetry.checksum import checksums_hold, has_checksum

_STEP = b'"kind":"step","step":'
_STEP_KIND, _DEVICE, _ATTEMPT = b"step", b"device", b"attempt"
_TOTALS = b'"training_seconds":'
# Of each line its kind; of a step in place of that its loss and the norm of its gradient.
_TOLD = re.compile(
    rb'"kind":"(?:step","step":\d+,"epoch":[^,]+,"loss":([^,]+),"learning_rate":[^,]+,"gradient_norm":([^,]+),'
    rb'|([^"]*)")'
)
_TOKENS_AND_SECONDS = re.compile(rb'"tokens":(\d+),"seconds":([^,}]+)')
# With shorter spans most steps are told, and parsing them all costs less than choosing.
_LEAST_STRIDE = 16


def first_step(chunk: bytes) -> int | None:
    """The number of the first step in `chunk`, if there is one."""
    place = chunk.find(_STEP)
    number = chunk[place + len(_STEP) : place + len(_STEP) + 20].partition(b",")[0]
    return int(number) if place >= 0 and number.isdigit() else None


def telling_lines(chunk: bytes, stride: int, recent_from: int) -> tuple[list[bytes], int, float]:
    """What of `chunk` (whole lines of a journal) a fold must see: the lines, and the tokens and seconds of the steps
    left out, where no line tells the totals. The fold's curve keeps the extremes of every `stride` steps; its pace
    is that of the steps from `recent_from` on. The checksums of the lines left out are right."""
    lines = chunk.split(b"\n")[:-1]
    if stride >= _LEAST_STRIDE and lines and _are_whole(chunk, lines):
        chosen = _choose(chunk, lines, stride, recent_from)
        if chosen is not None:
            told, tokens, seconds = chosen
            return [lines[index] for index in sorted(told)], tokens, seconds
    return [line for line in lines if line], 0, 0.0


def _are_whole(chunk: bytes, lines: list[bytes]) -> bool:
    """Whether all lines are of format 2 with their checksums, or all of format 1 and look whole."""
    if has_checksum(lines[0]):
        return checksums_hold(lines)
    first = chunk.startswith(b'{"v":1,') + chunk.count(b'\n{"v":1,')
    return first == chunk.count(b"}\n") == len(lines)


def _choose(chunk: bytes, lines: list[bytes], stride: int, recent_from: int) -> tuple[set[int], int, float] | None:
    """Which of `lines` tell something, with the tokens and seconds of the others; None when the steps do not follow
    one another, or are not written, as usual."""
    found = _TOLD.findall(chunk)
    if len(found) != len(lines):
        return None
    losses, norms, kinds = zip(*found, strict=True)
    steps = list(compress(range(len(lines)), losses))
    named = list(compress(range(len(lines)), kinds))
    # All that is no step, with the newest reading of the devices, and the last line for its time and number.
    others = {index for index in named if kinds[index] != _DEVICE} | {len(lines) - 1}
    others.update([index for index in named if kinds[index] == _DEVICE][-1:])
    if not steps:
        return others, 0, 0.0
    first, last = first_step(lines[steps[0]]), first_step(lines[steps[-1]])
    if first is None or last is None or last - first + 1 != len(steps):
        return None
    if any(kinds[index] == _STEP_KIND or (kinds[index] == _ATTEMPT and index > steps[0]) for index in others):
        return None
    places = _telling_steps(_numbers(losses), _numbers(norms), first, stride, recent_from)
    told = others | {steps[place] for place in places}
    if _TOTALS in lines[steps[0]] and _TOTALS in lines[steps[-1]]:
        return told, 0, 0.0
    untold = [_TOKENS_AND_SECONDS.search(lines[index]) for index in steps if index not in told]
    work = [match.groups() for match in untold if match is not None]
    if len(work) != len(untold) or _TOTALS in chunk:
        return None
    tokens, seconds = zip(*work, strict=True) if work else ((), ())
    return told, sum(map(int, tokens)), sum(map(float, seconds))


def _telling_steps(
    losses: list[float | None], norms: list[float | None], first: int, stride: int, recent_from: int
) -> set[int]:
    """Which steps the curve may keep and the pace needs; indices count from step `first`."""
    count = len(losses)
    wanted = {0, *range(max(0, recent_from - first), count)}
    start = 0
    while start < count:
        end = min(count, ((first + start) // stride + 1) * stride - first)
        wanted |= _extremes(losses[start:end], norms[start:end], start)
        start = end
    return wanted


def _numbers(column: Sequence[bytes]) -> list[float | None]:
    """The values of the steps in `column`, where lines of other kinds have none."""
    return json.loads(b"[" + b",".join(filter(None, column)) + b"]")


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
