"""Why a device runs slower than it could: to protect itself from heat, or because its power supply asks for it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiles.machine.host import HostFiles

# By the name of the constant after nvmlClocksEventReason, or ThrottleReason in older libraries; the first that holds is
# told. A GPU at its power limit (SwPowerCap) is left out: that is how a GPU which works well usually runs. HwSlowdown
# also holds with each of the others of the hardware.
_REASONS = {
    "HwThermalSlowdown": "it is too hot (the hardware lowers its clocks)",
    "SwThermalSlowdown": "it is too hot (the driver lowers its clocks)",
    "HwPowerBrakeSlowdown": "its power supply cannot give more (power brake)",
    "HwSlowdown": "the hardware lowers its clocks, for heat or want of power",
}
CPU_REASON = "it is too hot (thermal throttling)"


@dataclass(frozen=True, slots=True)
class Slowdown:
    """`device` is what people call it, "GPU 0 (NVIDIA L4)" or "CPU"; `celsius` is None where it is not known."""

    device: str
    reason: str
    celsius: float | None = None


def gpu_slowdown(library: Any, reasons: int) -> str:
    """The reason among NVML's bits `reasons` why a GPU protects itself; "" where it does not. `library` is pynvml, of
    any version."""
    for name, text in _REASONS.items():
        for prefix in ("nvmlClocksEventReason", "nvmlClocksThrottleReason"):
            if reasons & getattr(library, prefix + name, 0):
                return text
    return ""


class CpuThrottling:
    """The kernel's counts of how often cores and packages were too hot. Intel's have them; others never rise."""

    def __init__(self, files: HostFiles):
        self._counters = sorted(files.cpus.glob("cpu*/thermal_throttle/*_throttle_count"))
        self._before = self._total()

    def rose(self) -> bool:
        """Whether any did since the last call."""
        before, self._before = self._before, self._total()
        return self._before > before

    def _total(self) -> int:
        total = 0
        for path in self._counters:
            with suppress(OSError, ValueError):  # a core that was taken off line
                total += int(path.read_text(encoding="ascii"))
        return total
