"""Devices that slow down to protect themselves, or that fall away: told when it begins and when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pynvml
import pytest
from fake_nvml import Board, FakeNvml
from fault_ledger import Ledger

from engine.run.telemetry.events import RunState
from engine.run.telemetry.folding import fold
from engine.run.watching.throttle import ThrottleWatch
from profiles.hardware import DeviceSampler, HostFiles
from profiles.machine.nvml import Nvml
from profiles.machine.slowdown import Slowdown

POWER_CAP, SLOWDOWN, DRIVER_HEAT, HEAT, BRAKE = 0x04, 0x08, 0x20, 0x40, 0x80


class OldNvml(FakeNvml):
    """pynvml of before NVIDIA called them events."""

    def __getattr__(self, name: str) -> Any:
        if "ClocksEvent" in name:
            raise AttributeError(name)
        return super().__getattr__(name)


@pytest.mark.parametrize("library", [FakeNvml, OldNvml])
@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, None),
        (POWER_CAP, None),
        (HEAT | SLOWDOWN, "too hot (the hardware"),
        (DRIVER_HEAT | POWER_CAP, "too hot (the driver"),
        (BRAKE | SLOWDOWN, "power supply"),
        (SLOWDOWN, "for heat or want of power"),
    ],
)
def test_why_a_gpu_slows_down(tmp_path: Path, library: type[FakeNvml], bits: int, words: str | None):
    sampler = DeviceSampler(None, tmp_path, nvml=Nvml(library(Board("GPU-1", clock_reasons=bits)), {}))
    sampler.sample()
    found = sampler.slowdowns()
    assert [(each.device, each.celsius) for each in found] == ([("GPU 0 (NVIDIA Test GPU)", 61)] if words else [])
    assert words is None or words in found[0].reason


def test_a_driver_that_says_nothing_of_clocks_and_a_gpu_that_is_lost(tmp_path: Path, ledger: Ledger):
    silent, lost = Board("GPU-1"), Board("GPU-2")
    for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
        silent.faults[name] = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    sampler = DeviceSampler(None, tmp_path, nvml=Nvml(FakeNvml(silent, lost), {}))
    assert len(sampler.sample()["gpus"]) == 2 and sampler.slowdowns() == [] and sampler.lost_gpus() == []
    lost.faults["nvmlDeviceGetUtilizationRates"] = pynvml.NVML_ERROR_GPU_IS_LOST
    ledger.injected("a GPU that falls off the bus while it is read")
    assert [gpu["index"] for gpu in sampler.sample()["gpus"]] == [0] and sampler.lost_gpus() == [1]


def test_a_cpu_that_is_too_hot_is_known_by_counts_that_rise(tmp_path: Path):
    counts = [tmp_path / f"cpu{n}" / "thermal_throttle" / "core_throttle_count" for n in range(2)]
    for path in counts:
        path.parent.mkdir(parents=True)
        path.write_text("7\n")
    sampler = DeviceSampler(None, tmp_path, nvml=Nvml(FakeNvml(), {}), files=HostFiles(cpus=tmp_path))
    assert sampler.slowdowns() == []
    counts[1].write_text("9\n")
    assert [each.device for each in sampler.slowdowns()] == ["CPU"]
    assert sampler.slowdowns() == []
    counts[0].unlink()  # taken off line
    assert sampler.slowdowns() == []


HOT = Slowdown("GPU 0 (L4)", "it is too hot", 93.0)


class Readings:
    """One reading a second, on a run that is in `state`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.state = RunState(step=100, recent_seconds_per_step=1.0)
        self._watch = ThrottleWatch(lambda: self.now)

    def take(self, slowdowns: Sequence[Slowdown], times: int = 1) -> list[dict[str, Any]]:
        told = []
        for _ in range(times):
            self.now += 1
            told += self._watch.take(slowdowns, self.state)
        return told


def test_it_is_told_once_with_its_effect_and_once_when_it_is_over(ledger: Ledger):
    readings = Readings()
    ledger.injected("a GPU that is too hot")
    assert readings.take([], 100) == []
    (began,) = readings.take([HOT], 60)
    assert (began["on"], began["text"]) == (True, "GPU 0 (L4) runs slower, since it is too hot, at 93 °C")
    readings.state = RunState(step=140, recent_seconds_per_step=1.4)
    (known,) = readings.take([HOT], 60)
    assert known["on"] and known["text"].endswith("at 93 °C: a step takes 1.4x as long as before")
    # Some cool seconds in between are not the end of it.
    assert readings.take([], 20) + readings.take([HOT], 1) + readings.take([], 29) == []
    (other,) = readings.take([Slowdown(HOT.device, "power brake")], 10)
    assert other["reason"] == "power brake" and other["celsius"] is None
    (over,) = readings.take([], 60)
    assert not over["on"] and over["text"] == "GPU 0 (L4) runs at its usual speed again, after 3 min"

    events = [{"v": 1, "seq": n, "kind": "throttle", **fields} for n, fields in enumerate((began, known, other, over))]
    assert fold(events[:3]).throttled["GPU 0 (L4)"]["reason"] == "power brake"
    assert fold(events).throttled == {} and fold(events).damaged == 0


def test_blips_are_not_told():
    readings = Readings()
    for _ in range(200):
        assert readings.take([HOT]) + readings.take([], 2) == []
