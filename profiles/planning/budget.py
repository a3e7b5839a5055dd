"""How much of the free memory a plan may spend, and what it keeps back and why."""

from __future__ import annotations

from profiles.hardware import Hardware
from profiles.memory import MemoryEstimate

# What others that already run may take on top: a desktop, a browser, a notebook that goes on.
_OTHERS_SHARE = 0.05
_OTHERS_LIMIT_BYTES = 1 << 30
_GPU_LEAST_BYTES, _RAM_LEAST_BYTES = 256 << 20, 512 << 20


def free_bytes(hardware: Hardware) -> int:
    """What is free now where training happens: on the first GPU, else in RAM."""
    return hardware.gpus[0].free_bytes if hardware.gpus else hardware.ram.available_bytes


def others_bytes(hardware: Hardware) -> int:
    """Kept back for what else uses the device: 5 % of what it holds now, no less than a small program takes, and no
    more than 1 GiB."""
    if hardware.gpus:
        return _growth(hardware.gpus[0].used_bytes, _GPU_LEAST_BYTES)
    return _others_in_ram_bytes(hardware)


def budget_bytes(hardware: Hardware, error_share: float) -> int:
    """The highest predicted peak that still fits when the prediction is too low by `error_share` of itself."""
    return max(0, int((free_bytes(hardware) - others_bytes(hardware)) / (1 + error_share)))


def host_fits(hardware: Hardware, estimated: MemoryEstimate) -> bool:
    """Whether a run on a GPU finds the RAM it needs (weights on their way in, what is offloaded or paged out).

    A GPU that shares the machine's memory takes both from it.
    """
    if not hardware.gpus:
        return True
    needed = estimated.host_bytes + (estimated.peak_bytes if hardware.gpus[0].unified else 0)
    return needed <= hardware.ram.available_bytes - _others_in_ram_bytes(hardware)


def _others_in_ram_bytes(hardware: Hardware) -> int:
    return _growth(hardware.ram.total_bytes - hardware.ram.available_bytes, _RAM_LEAST_BYTES)


def _growth(used_bytes: int, least_bytes: int) -> int:
    return max(least_bytes, min(_OTHERS_LIMIT_BYTES, int(_OTHERS_SHARE * used_bytes)))
