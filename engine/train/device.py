"""Which device a run trains on and in which precision, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate.utils import AutocastKwargs

from profiles.problem import Problem

# Autocast's own cache would hold a half-precision copy of every fp32 weight that learns until the forward ends (16 GB
# for full tuning of 8 B parameters), though a layer that recomputes needs its copies only while it runs.
AUTOCAST = AutocastKwargs(cache_enabled=False)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class DeviceChoice:
    """The device, the precision its matrix units are best at, and why."""

    kind: Literal["cuda", "cpu"]
    dtype: torch.dtype
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Precision:
    """`weights`: how the base is stored; `compute`: what matrix products run in; autocast bridges the two."""

    weights: torch.dtype
    compute: torch.dtype
    autocast: bool
    reason: str

    @property
    def mixed_precision(self) -> str:
        """accelerate's word for it."""
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}[self.compute] if self.autocast else "no"


def choose_device() -> DeviceChoice:
    """The first visible GPU, else the CPU, with the dtype that device computes natively."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        major, minor = torch.cuda.get_device_capability()
        if major >= 8:
            return DeviceChoice("cuda", torch.bfloat16, (f"bf16: {name} (compute capability {major}.{minor}) has it",))
        return DeviceChoice("cuda", torch.float16, (f"fp16: {name} ({major}.{minor}) has no native bf16",))
    bf16 = "has native bf16, which model.dtype can ask for" if _cpu_has_bf16() else "has no native bf16"
    return DeviceChoice("cpu", torch.float32, (f"fp32: there is no GPU, and this CPU {bf16}",))


def choose_precision(requested: str, method: str, device: DeviceChoice) -> Precision:
    """The precision for a spec's dtype (`requested`) and method. Raises Problem for one the device cannot do."""
    compute = device.dtype if requested == "auto" else DTYPES[requested]
    reason = device.reasons[0] if requested == "auto" else f"{requested}: asked for in model.dtype"
    if compute is torch.float16 and device.kind == "cpu":
        raise Problem("model.dtype", "fp16 does not train on a CPU", 'Use "auto", "fp32" or "bf16".')
    if compute is torch.float32:
        return Precision(torch.float32, torch.float32, autocast=False, reason=reason)
    if method == "full":
        # An update of 2e-5 on a weight of 0.02 is below bf16's spacing there (1.2e-4) and would be rounded away.
        return Precision(torch.float32, compute, autocast=True, reason=f"{reason}; weights kept in fp32, full tuning")
    learning = "the layers that learn" if method == "partial" else "adapters"
    return Precision(compute, compute, autocast=True, reason=f"{reason}; {learning} kept in fp32")


def device_words(device: torch.device) -> str:
    """The kind of device, and of a CPU the instructions that torch's kernels use: their sums are rounded otherwise."""
    return f"cpu with {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


def _cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 dot products (x86: avx512_bf16 or amx_bf16; Arm: bf16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))
