"""Public figures of GPUs that people own, found by the name NVML gives them (catalogue/gpus.toml)."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

_FILE = Path(__file__).parents[1] / "catalogue" / "gpus.toml"
_MAKER = re.compile(r"^(nvidia|tesla|quadro|geforce|\s)+")
_MIG = re.compile(r"\bmig (?P<slices>\d)(?:c\.\d)?g\.(?P<gigabytes>\d+)gb")
# A GPU that can be cut has seven compute slices and eight memory slices (NVIDIA's MIG user guide).
_COMPUTE_SLICES = 7


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU as its maker describes it. Rates are FLOP/s of dense products, fp32 sums, at boost clocks."""

    name: str
    memory_bytes: int
    """What the driver reports in total: a little under the label where it keeps some for itself."""
    bandwidth_bytes_per_second: float
    bf16_flops: float
    """0 where the GPU has no bf16."""
    fp16_flops: float
    fp32_flops: float
    """Of the ordinary cores: PyTorch's fp32 products do not use TF32 unless asked to."""
    capability: tuple[int, int]
    unified: bool
    """Whether the GPU shares the processor's memory."""
    source: str


@cache
def all_gpus() -> tuple[GpuFacts, ...]:
    """Every GPU in the catalogue, in the file's order."""
    entries = tomllib.loads(_FILE.read_text(encoding="utf-8"))["gpu"]
    return tuple(_facts(entry) for entry in entries)


@cache
def facts_for(name: str) -> GpuFacts | None:
    """What is known of the GPU that NVML calls `name`, or the share of it that a MIG slice has; None if nothing is."""
    spoken = _spoken(name)
    if mig := _MIG.search(spoken):
        board = _find(spoken[: mig.start()].strip())
        return _slice(board, name, int(mig["slices"]), int(mig["gigabytes"])) if board else None
    return _find(spoken)


def typical_gpu(total_bytes: int, capability: tuple[int, int] | None = None) -> GpuFacts:
    """The card of the catalogue to stand for one that is not in it: of its capability (else of any that has bf16),
    nearest to it in memory, and of those the one of middling speed."""
    same = [facts for facts in all_gpus() if facts.capability == capability]
    kind = same or [facts for facts in all_gpus() if facts.bf16_flops and not facts.unified]
    nearest = min(abs(facts.memory_bytes - total_bytes) for facts in kind)
    near = [facts for facts in kind if abs(facts.memory_bytes - total_bytes) <= nearest + (1 << 30)]
    return sorted(near, key=lambda facts: facts.fp16_flops)[(len(near) - 1) // 2]


def _find(spoken: str) -> GpuFacts | None:
    return _by_name().get(spoken)


@cache
def _by_name() -> dict[str, GpuFacts]:
    entries = tomllib.loads(_FILE.read_text(encoding="utf-8"))["gpu"]
    found: dict[str, GpuFacts] = {}
    for entry, facts in zip(entries, all_gpus(), strict=True):
        for name in (facts.name, *entry.get("also", ())):
            assert _spoken(name) not in found, f"{name} stands in gpus.toml twice"
            found[_spoken(name)] = facts
    return found


def _spoken(name: str) -> str:
    """`name` without its maker and its marks: "NVIDIA GeForce RTX 4090" and "rtx-4090" are both "rtx 4090"."""
    words = re.sub(r"[\s_-]+", " ", name.casefold().replace("(tm)", "").replace("(r)", "")).strip()
    return _MAKER.sub("", words)


def _slice(board: GpuFacts, name: str, slices: int, gigabytes: int) -> GpuFacts:
    share = slices / _COMPUTE_SLICES
    memory_bytes = min(gigabytes << 30, board.memory_bytes)
    return replace(
        board,
        name=name,
        memory_bytes=memory_bytes,
        bandwidth_bytes_per_second=board.bandwidth_bytes_per_second * memory_bytes / board.memory_bytes,
        bf16_flops=board.bf16_flops * share,
        fp16_flops=board.fp16_flops * share,
        fp32_flops=board.fp32_flops * share,
    )


def _facts(entry: dict) -> GpuFacts:
    major, _, minor = entry["capability"].partition(".")
    return GpuFacts(
        name=entry["name"],
        memory_bytes=entry["memory_mib"] << 20,
        bandwidth_bytes_per_second=entry["bandwidth_gb"] * 1e9,
        bf16_flops=entry["bf16_tflops"] * 1e12,
        fp16_flops=entry["fp16_tflops"] * 1e12,
        fp32_flops=entry["fp32_tflops"] * 1e12,
        capability=(int(major), int(minor)),
        unified=entry.get("unified", False),
        source=entry["source"],
    )
