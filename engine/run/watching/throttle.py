"""Telling when a device begins to protect itself by running slower, and when it is over: not each of its blips."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.run.telemetry.events import RunState
from engine.run.telemetry.folding import RECENT_STEPS
from engine.run.times import seconds_text
from profiles.machine.slowdown import Slowdown

# In readings, of which there is one a second. Under full load many a device blips: it is told once half of the last ten
# seconds were slow, and as over once half a minute had none.
_TOLD_AFTER, _WITHIN, _OVER_AFTER = 5, 10, 30
# Steps differ by so much anyway.
_TELLING_RATIO = 1.1


@dataclass(slots=True)
class _Device:
    readings: deque[bool] = field(default_factory=lambda: deque(maxlen=_OVER_AFTER))
    told: Slowdown | None = None
    since: float = 0.0
    seconds_per_step_before: float | None = None
    step: int = 0
    """The run's when it was told."""
    effect_is_told: bool = False


class ThrottleWatch:
    """What the readings of all devices say, one after another."""

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._devices: dict[str, _Device] = {}

    def take(self, slowdowns: Iterable[Slowdown], state: RunState) -> Iterator[dict[str, Any]]:
        """The fields of the `throttle` events there are after a reading that found `slowdowns`, while the run is in
        `state`."""
        found = {slowdown.device: slowdown for slowdown in slowdowns}
        for name in found.keys() | self._devices.keys():
            device = self._devices.setdefault(name, _Device())
            yield from self._judge(name, device, found.get(name), state)

    def _judge(self, name: str, device: _Device, now: Slowdown | None, state: RunState) -> Iterator[dict[str, Any]]:
        if now is not None and device.told is None and not any(device.readings):
            device.seconds_per_step_before = state.recent_seconds_per_step
            device.since = self._clock()
        device.readings.append(now is not None)
        recent = list(device.readings)[-_WITHIN:]
        if now is not None and sum(recent) >= _TOLD_AFTER and (device.told is None or device.told.reason != now.reason):
            device.told, device.step, device.effect_is_told = now, state.step, False
            yield _fields(now, on=True, text=_slower(now))
        elif device.told is not None and not any(device.readings):
            lasted = self._clock() - device.since - _OVER_AFTER
            yield _fields(
                device.told, on=False, text=f"{name} runs at its usual speed again, after {seconds_text(lasted)}"
            )
            device.told = None
        elif device.told is not None and not device.effect_is_told and state.step >= device.step + RECENT_STEPS:
            device.effect_is_told = True
            before, after = device.seconds_per_step_before, state.recent_seconds_per_step
            if before and after and after / before >= _TELLING_RATIO:
                effect = f": a step takes {after / before:.1f}x as long as before"
                yield _fields(now or device.told, on=True, text=_slower(device.told) + effect)


def _slower(slowdown: Slowdown) -> str:
    heat = f", at {slowdown.celsius:.0f} °C" if slowdown.celsius is not None else ""
    return f"{slowdown.device} runs slower, since {slowdown.reason}{heat}"


def _fields(slowdown: Slowdown, *, on: bool, text: str) -> dict[str, Any]:
    return {
        "device": slowdown.device,
        "reason": slowdown.reason,
        "celsius": slowdown.celsius,
        "on": on,
        "text": text,
    }
