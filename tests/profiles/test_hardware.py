"""The machine as `probe` tells it, with GPUs described by a stand-in for NVML and a host by files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pynvml
import pytest
from fake_nvml import GIB, Board, FakeNvml

from profiles.hardware import DeviceSampler, Hardware, HostFiles, probe
from profiles.machine.host import measure_write_speed
from profiles.machine.nvml import Nvml

A, B = Board("GPU-aaaa-1111"), Board("GPU-bbbb-2222", used=5 * GIB)


def machine(tmp_path: Path, library: FakeNvml, **environment: str) -> Hardware:
    return probe(tmp_path, nvml=Nvml(library, environment))


def test_a_machine_as_json(tmp_path: Path) -> None:
    board = Board("GPU-aaaa-1111", processes=[(os.getpid(), 3 * GIB), (2**22 + 1, None)])
    library = FakeNvml(board)

    found = machine(tmp_path / "not" / "there" / "yet", library)

    gpu = json.loads(json.dumps(found.as_dict()))["gpus"][0]
    assert {key: value for key, value in gpu.items() if key != "processes"} == {
        "index": 0,
        "uuid": "GPU-aaaa-1111",
        "name": "NVIDIA Test GPU",
        "total_bytes": 24 * GIB,
        "used_bytes": 1 * GIB,
        "capability": [8, 9],
        "native_bf16": True,
        "celsius": 61.0,
        "watts": 212.5,
        "share": 0.37,
        "unified": False,
        "slowdown": "",
        "fp8": True,
        "flash_attention": True,
        "int8": True,
    }
    ours, foreign = gpu["processes"]
    assert (ours["pid"], ours["bytes"], ours["command"]) == (os.getpid(), 3 * GIB, psutil.Process().name())
    assert (foreign["user"], foreign["command"], foreign["bytes"]) == ("?", "?", None)
    assert found.disk.free_bytes > 0 and found.cpu.logical_cores >= found.cpu.physical_cores >= 1
    assert found.notes == ()
    assert library.inits == library.shutdowns == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "no NVIDIA driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "not loaded"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "reboot"),
        (pynvml.NVML_ERROR_UNKNOWN, "does not answer"),
    ],
)
def test_a_driver_that_does_not_start_is_a_note(tmp_path: Path, error: int, words: str) -> None:
    found = machine(tmp_path, FakeNvml(A, init_error=error))
    assert found.gpus == ()
    assert len(found.notes) == 1 and words in found.notes[0]


def test_a_driver_without_a_gpu_is_a_note(tmp_path: Path) -> None:
    assert "sees no GPU" in machine(tmp_path, FakeNvml()).notes[0]


@pytest.mark.parametrize("call", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMigMode", "nvmlDeviceGetPowerUsage"])
def test_a_gpu_off_the_bus_is_left_out_and_the_others_stay(tmp_path: Path, call: str) -> None:
    lost = Board("GPU-lost", faults={call: pynvml.NVML_ERROR_GPU_IS_LOST})
    found = machine(tmp_path, FakeNvml(lost, B))
    assert [gpu.uuid for gpu in found.gpus] == [B.uuid]
    assert found.notes == ("GPU 0 has fallen off the bus and is left out; a reboot brings it back.",)


def test_what_a_driver_does_not_support_is_none(tmp_path: Path) -> None:
    unsupported = dict.fromkeys(
        [
            "nvmlDeviceGetTemperature",
            "nvmlDeviceGetPowerUsage",
            "nvmlDeviceGetUtilizationRates",
            "nvmlDeviceGetComputeRunningProcesses",
            "nvmlDeviceGetGraphicsRunningProcesses",
            "nvmlDeviceGetMigMode",
            "nvmlDeviceGetCudaComputeCapability",
        ],
        pynvml.NVML_ERROR_NOT_SUPPORTED,
    )
    (gpu,) = machine(tmp_path, FakeNvml(Board("GPU-x", faults=unsupported))).gpus
    assert (gpu.celsius, gpu.watts, gpu.share, gpu.capability, gpu.native_bf16) == (None, None, None, None, False)
    assert gpu.processes == () and gpu.total_bytes == 24 * GIB


@pytest.mark.parametrize(
    "shared",
    [
        Board("GPU-x", name="NVIDIA GB10", faults={"nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_NOT_SUPPORTED}),
        Board(
            "GPU-x", name="Orin (nvgpu)", total=0, used=0, faults={"nvmlDeviceGetUUID": pynvml.NVML_ERROR_NOT_SUPPORTED}
        ),
    ],
)
def test_a_gpu_without_memory_of_its_own_shows_the_machines(tmp_path: Path, shared: Board) -> None:
    found = machine(tmp_path, FakeNvml(shared))
    (gpu,) = found.gpus
    assert gpu.unified and gpu.total_bytes == found.ram.total_bytes and gpu.free_bytes == found.ram.available_bytes
    assert "no memory of its own" in found.notes[0]


@pytest.mark.parametrize(
    ("capability", "able"),
    [
        ((6, 1), set()),
        ((7, 0), set()),
        ((7, 5), {"int8"}),
        ((8, 6), {"int8", "native_bf16", "flash_attention"}),
        ((8, 9), {"int8", "native_bf16", "flash_attention", "fp8"}),
        ((12, 1), {"int8", "native_bf16", "flash_attention", "fp8"}),
    ],
)
def test_what_follows_from_the_compute_capability(tmp_path: Path, capability: tuple[int, int], able: set[str]) -> None:
    found = machine(tmp_path, FakeNvml(Board("GPU-x", capability=capability))).as_dict()["gpus"][0]
    assert {name for name in ("int8", "native_bf16", "flash_attention", "fp8") if found[name]} == able


def test_a_forbidden_gpu_is_left_out_with_the_reason(tmp_path: Path) -> None:
    forbidden = Board("GPU-x", faults={"nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_NO_PERMISSION})
    found = machine(tmp_path, FakeNvml(forbidden))
    assert found.gpus == () and "Insufficient Permissions" in found.notes[0]


def test_mig_slices_are_gpus_with_the_boards_sensors(tmp_path: Path) -> None:
    slices = [
        Board(f"MIG-{n}", total=10 * GIB, faults={"nvmlDeviceGetPowerUsage": pynvml.NVML_ERROR_NOT_SUPPORTED})
        for n in (1, 2)
    ]
    found = machine(tmp_path, FakeNvml(Board("GPU-a", slices=slices)))
    assert [(gpu.uuid, gpu.total_bytes, gpu.watts) for gpu in found.gpus] == [
        ("MIG-1", 10 * GIB, 212.5),
        ("MIG-2", 10 * GIB, 212.5),
    ]
    assert "2 MIG slices" in found.notes[0]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", ["GPU-bbbb-2222"]),
        ("1,0", ["GPU-bbbb-2222", "GPU-aaaa-1111"]),
        (" GPU-bb ", ["GPU-bbbb-2222"]),
        ("GPU-aaaa-1111,GPU-bbbb-2222", ["GPU-aaaa-1111", "GPU-bbbb-2222"]),
        ("MIG-7", ["MIG-7"]),
        ("MIG-8,0", ["MIG-8", "GPU-aaaa-1111"]),
        ("MIG-GPU-aaaa-1111/7/0", []),  # what drivers before 470 called a slice
        ("2", ["MIG-7"]),
        ("0,9,1", ["GPU-aaaa-1111"]),  # read up to the first that names nothing
        ("GPU-", []),  # not a unique start
        ("0,0", []),
        ("-1", []),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices(tmp_path: Path, visible: str, expected: list[str]) -> None:
    library = FakeNvml(A, B, Board("GPU-cccc", slices=[Board("MIG-7"), Board("MIG-8")]))
    found = machine(tmp_path, library, CUDA_VISIBLE_DEVICES=visible)
    assert [gpu.uuid for gpu in found.gpus] == expected
    assert any("CUDA_VISIBLE_DEVICES" in note for note in found.notes)


def test_unlike_gpus_are_told_to_be_numbered_by_the_bus(tmp_path: Path) -> None:
    library = FakeNvml(A, Board("GPU-z", name="NVIDIA Other"))
    assert any("CUDA_DEVICE_ORDER" in note for note in machine(tmp_path, library).notes)
    assert machine(tmp_path, library, CUDA_DEVICE_ORDER="PCI_BUS_ID").notes == ()


def test_ram_and_cores_stay_within_the_control_group(tmp_path: Path) -> None:
    group = tmp_path / "cgroup/job/inner"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job/inner\n")
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nmodel name : Fast\x1b[31m CPU\nflags : fpu avx512_bf16\n\n")
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    limit = 64 << 20
    (group.parent / "memory.max").write_text(f"{limit}\n")
    (group.parent / "memory.current").write_text(f"{16 << 20}\n")
    (group.parent / "memory.stat").write_text(f"anon 5\ninactive_file {6 << 20}\n")
    (group / "cpu.max").write_text("150000 100000\n")

    found = probe(tmp_path, nvml=Nvml(FakeNvml(A), {}), files=HostFiles(tmp_path / "proc", tmp_path / "cgroup"))

    assert (found.ram.total_bytes, found.ram.available_bytes) == (limit, limit - (10 << 20))
    assert (found.cpu.logical_cores, found.cpu.native_bf16) == (1, True)
    assert found.cpu.name == "Fast\\x1b[31m CPU"
    assert any("control group" in note for note in found.notes)


def test_version_1_control_groups_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "cgroup/memory").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    # The path is the host's; inside the container only the mount itself has files.
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123\n0::/\n")
    (tmp_path / "cgroup/memory/memory.limit_in_bytes").write_text(f"{32 << 20}\n")
    (tmp_path / "cgroup/memory/memory.usage_in_bytes").write_text(f"{33 << 20}\n")
    found = probe(tmp_path, nvml=Nvml(FakeNvml(A), {}), files=HostFiles(tmp_path / "proc", tmp_path / "cgroup"))
    assert (found.ram.total_bytes, found.ram.available_bytes) == (32 << 20, 0)


def test_the_write_speed_is_measured_and_nothing_stays_behind(tmp_path: Path) -> None:
    assert measure_write_speed(tmp_path, 1 << 20) > 1 << 16
    assert not any(tmp_path.iterdir())
    with pytest.raises(OSError):
        measure_write_speed(tmp_path / "absent", 1 << 20)


def test_the_sampler_follows_a_worker_and_outlives_it(tmp_path: Path) -> None:
    code = "print(1, flush=True); input()"
    worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    worker.stdout.readline()  # from here on it has the size of a running interpreter
    library = FakeNvml(A, B)
    sampler = DeviceSampler(worker.pid, tmp_path, nvml=Nvml(library, {"CUDA_VISIBLE_DEVICES": "1"}))
    living = sampler.sample()
    worker.communicate(b"\n")
    dead = sampler.sample()
    sampler.close()

    assert living["worker_bytes"] > 1 << 20 and dead["worker_bytes"] == 0
    assert 0 < living["memory_used_bytes"] < living["memory_total_bytes"]
    assert 0 <= dead["cpu_share"] <= 1 and living["disk_free_bytes"] > 0
    assert living["gpus"] == [
        {
            "index": 1,
            "name": "NVIDIA Test GPU",
            "used_bytes": 5 * GIB,
            "total_bytes": 24 * GIB,
            "celsius": 61.0,
            "watts": 212.5,
            "share": 0.37,
        }
    ]
    assert (library.inits, library.shutdowns) == (1, 1)


def test_importing_hardware_loads_no_driver_library_and_nothing_heavy() -> None:
    code = "import sys, profiles.hardware; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "psutil" in loaded
    assert not {"pynvml", "torch", "numpy", "pydantic", "safetensors", "asyncio"} & set(loaded)
