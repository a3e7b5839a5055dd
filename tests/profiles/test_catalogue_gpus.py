"""The catalogue of GPUs: found by the names that NVML gives, and figures that cannot be mistaken for sparse ones."""

from __future__ import annotations

import pytest

from profiles.machine.gpu_catalogue import GpuFacts, all_gpus, facts_for, typical_gpu

GIB = 1 << 30

# As nvidia-smi prints them, with what the makers' tables say: memory in GiB, GB/s, TFLOP/s of dense half precision.
SPOKEN = [
    ("NVIDIA GeForce GTX 1080 Ti", 11, 484, 11.3, (6, 1)),
    ("NVIDIA GeForce RTX 2060", 6, 336, 26, (7, 5)),
    ("GeForce RTX 2080 Ti", 11, 616, 54, (7, 5)),
    ("NVIDIA TITAN RTX", 24, 672, 130, (7, 5)),
    ("NVIDIA GeForce RTX 3060", 12, 360, 25.5, (8, 6)),
    ("NVIDIA GeForce RTX 3080", 10, 760, 59.5, (8, 6)),
    ("NVIDIA GeForce RTX 3090", 24, 936, 71, (8, 6)),
    ("NVIDIA GeForce RTX 3070 Laptop GPU", 8, 448, 33, (8, 6)),
    ("NVIDIA GeForce RTX 4060 Ti", 8, 288, 44, (8, 9)),
    ("NVIDIA GeForce RTX 4070 Ti SUPER", 16, 672, 88, (8, 9)),
    ("NVIDIA GeForce RTX 4090", 24, 1008, 165, (8, 9)),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", 16, 576, 79, (8, 9)),
    ("NVIDIA GeForce RTX 5060 Ti", 16, 448, 47, (12, 0)),
    ("NVIDIA GeForce RTX 5090", 32, 1792, 209.5, (12, 0)),
    ("NVIDIA RTX A4000", 16, 448, 76.7, (8, 6)),
    ("NVIDIA RTX A6000", 48, 768, 154.8, (8, 6)),
    ("NVIDIA RTX 6000 Ada Generation", 48, 960, 364, (8, 9)),
    ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 96, 1792, 504, (12, 0)),
    ("Tesla T4", 15, 320, 65, (7, 5)),
    ("Tesla P100-PCIE-16GB", 16, 732, 18.7, (6, 0)),
    ("Tesla V100-SXM2-32GB", 32, 900, 125, (7, 0)),
    ("NVIDIA A10", 22.5, 600, 125, (8, 6)),
    ("NVIDIA A10G", 22.5, 600, 70, (8, 6)),
    ("NVIDIA A30", 24, 933, 165, (8, 0)),
    ("NVIDIA A40", 45, 696, 150, (8, 6)),
    ("NVIDIA A100-SXM4-40GB", 40, 1555, 312, (8, 0)),
    ("NVIDIA A100-SXM4-80GB", 80, 2039, 312, (8, 0)),
    ("NVIDIA A100 80GB PCIe", 80, 1935, 312, (8, 0)),
    ("NVIDIA L4", 22.5, 300, 121, (8, 9)),
    ("NVIDIA L40S", 45, 864, 362, (8, 9)),
    ("NVIDIA H100 PCIe", 80, 2039, 756, (9, 0)),
    ("NVIDIA H100 80GB HBM3", 80, 3352, 989, (9, 0)),
    ("NVIDIA H100 NVL", 94, 3938, 835, (9, 0)),
    ("NVIDIA H200", 140, 4800, 989, (9, 0)),
    ("NVIDIA GH200 480GB", 96, 4000, 989, (9, 0)),
    ("NVIDIA B200", 180, 7700, 2250, (10, 0)),
    ("NVIDIA GB10", 120, 273, 125, (12, 1)),
    ("Orin (nvgpu)", 61, 204.8, 42.5, (8, 7)),
    ("NVIDIA Thor", 123, 273, 258, (11, 0)),
]


@pytest.mark.parametrize(("name", "gib", "gigabytes", "teraflops", "capability"), SPOKEN)
def test_cards_by_the_names_that_nvml_gives(
    name: str, gib: float, gigabytes: float, teraflops: float, capability: tuple[int, int]
) -> None:
    facts = facts_for(name)
    assert facts is not None
    assert facts.memory_bytes == pytest.approx(gib * GIB, rel=0.02)
    assert facts.bandwidth_bytes_per_second == pytest.approx(gigabytes * 1e9, rel=0.01)
    assert max(facts.fp16_flops, facts.fp32_flops) == pytest.approx(teraflops * 1e12, rel=0.02)
    assert facts.capability == capability


def test_people_may_leave_out_the_maker_and_unknown_names_are_unknown() -> None:
    for name in ("rtx 4090", "RTX-4090", "geforce rtx 4090", "NVIDIA GeForce(TM) RTX 4090"):
        assert facts_for(name) is facts_for("NVIDIA GeForce RTX 4090")
    for name in ("", "NVIDIA", "4090", "RTX 4090 Ti", "Radeon RX 7900 XTX", "NVIDIA GeForce RTX 4090 MIG 9g"):
        assert facts_for(name) is None


def test_a_slice_has_its_share_of_the_board() -> None:
    board, part = facts_for("NVIDIA H100 80GB HBM3"), facts_for("NVIDIA H100 80GB HBM3 MIG 2g.20gb")
    assert board is not None and part is not None
    assert part.bf16_flops == pytest.approx(2 / 7 * board.bf16_flops)
    assert part.memory_bytes == 20 * GIB and part.bandwidth_bytes_per_second < board.bandwidth_bytes_per_second / 3
    assert facts_for("No Such Card MIG 1g.5gb") is None


def test_every_entry_is_possible() -> None:
    gpus = all_gpus()
    assert len(gpus) >= 45 and len({gpu.name for gpu in gpus}) == len(gpus)
    for gpu in gpus:
        _check(gpu)
    assert {gpu.name for gpu in gpus if gpu.unified} >= {"NVIDIA GB10", "Jetson AGX Thor"}


def _check(gpu: GpuFacts) -> None:
    assert facts_for(gpu.name) is gpu
    assert gpu.source and 5 * GIB < gpu.memory_bytes < 300 * GIB, gpu
    assert 90e9 < gpu.bandwidth_bytes_per_second < 10e12, gpu
    # bf16 came with Ampere; no card's dense half precision is more than about thirty-three times its fp32 (B200), and
    # of those for pictures never more than eight (a figure with sparsity would be).
    assert (gpu.bf16_flops > 0) == (gpu.capability >= (8, 0)), gpu
    assert gpu.bf16_flops in (0, gpu.fp16_flops), gpu
    pictures = gpu.capability in ((7, 5), (8, 6), (8, 9), (12, 0))
    assert gpu.fp16_flops <= (8.2 if pictures else 33) * gpu.fp32_flops, gpu
    if "GeForce" in gpu.name and gpu.capability >= (8, 6):
        assert gpu.fp16_flops == pytest.approx(2 * gpu.fp32_flops, rel=0.02), gpu


def test_a_card_that_is_not_there_is_like_its_kin() -> None:
    assert typical_gpu(24 * GIB, (8, 6)).capability == (8, 6)
    for gib in (8, 24, 48, 80):
        typical = typical_gpu(gib * GIB)
        assert typical.bf16_flops > 0 and typical.memory_bytes == pytest.approx(gib * GIB, rel=0.1)
    assert typical_gpu(500 * GIB).memory_bytes == max(gpu.memory_bytes for gpu in all_gpus())
