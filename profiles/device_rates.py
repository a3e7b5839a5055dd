"""How fast a device multiplies, reads memory and starts work: measured, or from public figures, or guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from profiles.hardware import Cpu, Gpu, Hardware
from profiles.machine.gpu_catalogue import facts_for, typical_gpu

# Shares of the public peak that large products reach in PyTorch: data-centre cards slow down at their power limit (an
# H100 runs 600 to 700 of 989 TFLOP/s), and GeForce and workstation cards of Ada clock above the figure they are sold
# with. torchtune's README has an RTX 4090 at 148 TFLOP/s, recompute included, with an 8B model and LoRA.
_PRODUCT_SHARE = {(7, 0): 0.75, (7, 5): 0.6, (8, 0): 0.85, (8, 9): 1.0, (9, 0): 0.7}
_PRODUCT_SHARE_ELSE = 0.8
# Element-wise kernels over large tensors.
_BANDWIDTH_SHARE = 0.85
# A kernel in PyTorch's eager mode, its share of Python and autograd included.
_GPU_OPERATION_SECONDS = 11e-6
# Products narrower than this run at under half of their best rate: too few tiles for a large GPU.
_GPU_HALF_WIDTH = 400
# Pinned copies over 16 lanes of PCIe 4.
_PCIE_BYTES_PER_SECOND = 20e9
# A core's fused multiply-adds at what desktop and server parts sustain: two 256-bit units at 2.5 GHz, of which a large
# product keeps 70 % (a server core with AVX-512 was measured at 92e9); two channels of DDR4; and, measured on that
# server, how products narrow, how long an operation takes to start and how fast a core unpacks NF4.
_CORE_FLOPS = 56e9
_CPU_BANDWIDTH = 40e9
_CPU_HALF_WIDTH = 20
_CPU_OPERATION_SECONDS = 10e-6
_CPU_DEQUANTISED_PER_CORE = 4e9
# On a GPU half a byte is read and two are written, at 70 % of the bandwidth.
_GPU_DEQUANTISED_PER_BYTE = 0.7 / 2.5

GUESSED, MEASURED_BUSY, PUBLISHED, MEASURED, LEARNT = 0.6, 0.5, 0.4, 0.25, 0.12
"""Error shares of a predicted speed by what is known of the device: nothing, a benchmark beside other work, public
figures, a benchmark, a run of this model. tests/benchmarks/speed_accuracy.py and the published runs in
tests/profiles/test_speed.py are what they rest on."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What runs on this machine made of a prediction: measured speed = `factor` x predicted."""

    factor: float
    error_share: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device does per second, as far as training depends on it. `device` is its name."""

    matmul_flops: Mapping[str, float]
    """FLOP/s of large products, by compute dtype; what is absent runs at the rate of fp32."""
    bandwidth_bytes_per_second: float
    device: str
    source: str
    """Where the figures come from, as a part of a sentence."""
    correction: float = 1.0
    kind: Literal["cuda", "cpu"] = "cuda"
    half_width: float = _GPU_HALF_WIDTH
    """Width of a matrix at which products reach half of their best rate."""
    operation_seconds: float = _GPU_OPERATION_SECONDS
    """Starting one operation, from Python through autograd to the device."""
    dequantised_per_second: float = 0.0
    """NF4 weights unpacked per second; 0: as the bandwidth allows."""
    transfer_bytes_per_second: float = _PCIE_BYTES_PER_SECOND
    error_share: float = PUBLISHED
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    """From earlier runs, by "method" and by "method model"."""

    @property
    def unpacked_per_second(self) -> float:
        """NF4 weights unpacked per second."""
        return self.dequantised_per_second or self.bandwidth_bytes_per_second * _GPU_DEQUANTISED_PER_BYTE


def rates_of(hardware: Hardware, measured: Mapping[str, Any] | None = None) -> Rates:
    """The rates of the device that trains on `hardware`: its first GPU, else its CPU.

    `measured` is what engine.fit.rates found on this machine (its `cached_rates`), and wins where it says something.
    """
    rates = _gpu_rates(hardware.gpus[0]) if hardware.gpus else _cpu_rates(hardware.cpu)
    return _with_measured(rates, measured) if measured else rates


def _gpu_rates(gpu: Gpu) -> Rates:
    facts, source, error_share = facts_for(gpu.name), "public figures of this card", PUBLISHED
    if facts is None:
        facts = typical_gpu(gpu.total_bytes, gpu.capability)
        source, error_share = f"figures of {facts.name}, since this card is in no catalogue", GUESSED
    share = _PRODUCT_SHARE.get(facts.capability, _PRODUCT_SHARE_ELSE)
    # Without tensor cores half precision is computed in fp32, whatever the card's own rate for it.
    fp32 = facts.fp32_flops * share
    return Rates(
        matmul_flops={
            "fp32": fp32,
            "fp16": max(facts.fp16_flops * share, fp32),
            "bf16": max(facts.bf16_flops * share, fp32),
        },
        bandwidth_bytes_per_second=facts.bandwidth_bytes_per_second * _BANDWIDTH_SHARE,
        device=gpu.name,
        source=source,
        dequantised_per_second=facts.bandwidth_bytes_per_second * _GPU_DEQUANTISED_PER_BYTE,
        # A GPU that shares the processor's memory copies within it.
        transfer_bytes_per_second=facts.bandwidth_bytes_per_second / 2 if facts.unified else _PCIE_BYTES_PER_SECOND,
        error_share=error_share,
    )


def _cpu_rates(cpu: Cpu) -> Rates:
    flops = _CORE_FLOPS * cpu.physical_cores
    return Rates(
        # Native bf16 doubles a vector unit's rate (and far more in matrix units); emulated it is slower than fp32.
        matmul_flops={"fp32": flops, "bf16": flops * 2 if cpu.native_bf16 else flops / 4},
        bandwidth_bytes_per_second=_CPU_BANDWIDTH,
        device=cpu.name,
        source="a guess from the number of cores",
        kind="cpu",
        half_width=_CPU_HALF_WIDTH,
        operation_seconds=_CPU_OPERATION_SECONDS,
        dequantised_per_second=_CPU_DEQUANTISED_PER_CORE * cpu.physical_cores,
        error_share=GUESSED,
    )


def _with_measured(rates: Rates, measured: Mapping[str, Any]) -> Rates:
    """`rates` with what was measured in their place. A value that is no positive number is passed over."""
    found: dict[str, Any] = {}
    for name in ("bandwidth_bytes_per_second", "half_width", "operation_seconds", "dequantised_per_second"):
        if _positive(measured.get(name)):
            found[name] = float(measured[name])
    flops = measured.get("matmul_flops")
    if isinstance(flops, Mapping) and _positive(flops.get("fp32")):
        found["matmul_flops"] = {**rates.matmul_flops, **{key: each for key, each in flops.items() if _positive(each)}}
        if measured.get("busy") is True:
            found |= {"source": "a benchmark of this machine while it was busy", "error_share": MEASURED_BUSY}
        else:
            found |= {"source": "a benchmark of this machine", "error_share": MEASURED}
    corrections = measured.get("corrections")
    if isinstance(corrections, Mapping):
        found["corrections"] = {
            key: Correction(float(factor), LEARNT if " " in key else MEASURED)
            for key, factor in corrections.items()
            if isinstance(key, str) and _positive(factor)
        }
    return replace(rates, **found)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
