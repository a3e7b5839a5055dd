"""`finetui hardware`: what it prints here, and how a GPU, its abilities and its figures are put in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Finetui

from profiles.hardware import Gpu, GpuProcess
from profiles.hardware_file import load_hardware
from tui.commands.hardware import _gpu_lines

GIB = 1 << 30


def gpu(name: str, capability: tuple[int, int] | None, **changes) -> Gpu:
    values = {
        "index": 0,
        "uuid": "GPU-1",
        "name": name,
        "total_bytes": 24 * GIB,
        "used_bytes": 6 * GIB,
        "capability": capability,
        "native_bf16": capability is not None and capability >= (8, 0),
        "celsius": 61.0,
        "watts": None,
        "share": 0.37,
        "processes": (),
    }
    return Gpu(**values | changes)


def test_this_machine_in_words_and_as_a_file_that_others_read(finetui: Finetui, tmp_path: Path):
    words = finetui("hardware").stdout.splitlines()
    assert [line.split()[0] for line in words][:3] == ["host", "CPU", "RAM"]
    (speed,) = (line for line in words if line.startswith("speed "))
    assert "FLOP/s · " in speed and speed.endswith(" · a guess from the number of cores")
    path = tmp_path / "here.json"
    path.write_text(finetui("hardware", "--json").stdout)
    assert load_hardware(path).ram.total_bytes > 0
    assert json.loads(path.read_text())["rates"]["matmul_flops"]["fp32"] > 0


@pytest.mark.parametrize(
    ("shown", "abilities", "figures"),
    [
        (
            gpu("NVIDIA GeForce RTX 4090", (8, 9)),
            "compute capability 8.9 · has bf16, fp8, flash attention, int8",
            "published: bf16 165, fp16 165, fp32 83 TFLOP/s dense · 1,008 GB/s",
        ),
        (
            gpu("Tesla T4", (7, 5)),
            "compute capability 7.5 · has int8 · no bf16, fp8, flash attention",
            "published: fp16 65, fp32 8 TFLOP/s dense · 320 GB/s",
        ),
        (
            gpu("NVIDIA Unknown", None),
            "compute capability not told by the driver, so fp16",
            "not in the catalogue of cards: speeds are guessed until they are measured",
        ),
    ],
)
def test_a_gpu_in_words(shown: Gpu, abilities: str, figures: str):
    first, *others = _gpu_lines(shown)
    assert first == f"GPU 0  {shown.name} · 6.0 of 24.0 GiB used · 61 °C · 37 % busy"
    assert [line.strip() for line in others] == [abilities, figures]


def test_who_holds_a_gpu_and_whose_memory_it_is():
    processes = (GpuProcess(7, "ada", "python", 6 * GIB), GpuProcess(8, "?", "?", None))
    lines = _gpu_lines(gpu("NVIDIA GB10", (12, 1), processes=processes, unified=True))
    assert " · shared with the CPU · " in lines[0]
    assert [line.strip() for line in lines[-2:]] == ["ada: python 6.0 GiB (pid 7)", "?: ? - (pid 8)"]
