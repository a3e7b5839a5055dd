"""What this machine has: `probe` once in full, `DeviceSampler` about once a second while a run trains."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from profiles.machine.host import Cpu, Disk, HostFiles, Ram, read_cpu, read_disk, read_ram
from profiles.machine.nvml import Gpu, GpuProcess, Nvml
from profiles.machine.slowdown import CPU_REASON, CpuThrottling, Slowdown
from profiles.problem import printable

__all__ = ["Cpu", "DeviceSampler", "Disk", "Gpu", "GpuProcess", "Hardware", "HostFiles", "Ram", "Slowdown", "probe"]

HARDWARE_VERSION = 1
"""Of what `as_dict` writes and profiles.hardware_file reads; a change that an older reader would misread raises it."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One machine as a run would find it. `gpus` are those CUDA sees, in its order; `notes` are texts."""

    host: str
    cpu: Cpu
    ram: Ram
    gpus: tuple[Gpu, ...]
    disk: Disk
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON types; sizes in bytes. What profiles.hardware_file reads back."""
        values = dataclasses.asdict(self)
        values["disk"]["path"] = str(self.disk.path)
        for gpu, entry in zip(self.gpus, values["gpus"], strict=True):
            entry["processes"] = list(entry["processes"])
            entry["capability"] = gpu.capability and list(gpu.capability)
            entry |= {"fp8": gpu.fp8, "flash_attention": gpu.flash_attention, "int8": gpu.int8}
        return {"version": HARDWARE_VERSION} | values | {"gpus": list(values["gpus"]), "notes": list(self.notes)}


def probe(runs_path: Path, *, nvml: Nvml | None = None, files: HostFiles = HostFiles()) -> Hardware:  # noqa: B008
    """Read the whole machine; `runs_path` is where runs are kept and need not exist yet.

    Never raises for a fault of the machine: what cannot be read is left out and said in `notes`. The first
    NVML call can take seconds where no process keeps the driver awake: keep this off an event loop.
    """
    opened = nvml or Nvml()
    ram, notes = read_ram(files), []
    try:
        gpus = tuple(opened.gpus(ram))
        notes += opened.notes
    finally:
        opened.close()
    try:
        disk = read_disk(runs_path)
    except OSError as error:
        disk = Disk(runs_path, 0, 0)
        notes.append(f"The disk under {printable(runs_path)} cannot be read ({error.strerror}).")
    if ram.total_bytes < psutil.virtual_memory().total:
        notes.append("Memory is limited by a control group (a container or a job's limit).")
    return Hardware(printable(platform.node()), read_cpu(files), ram, gpus, disk, tuple(notes))


class DeviceSampler:
    """Reads what moves while a run trains. `worker_pid` and `disk_path` may be changed between samples.

    NVML is opened once and closed by `close`.
    """

    def __init__(
        self,
        worker_pid: int | None,
        disk_path: Path = Path(),
        *,
        nvml: Nvml | None = None,
        files: HostFiles = HostFiles(),  # noqa: B008
    ):
        self.worker_pid = worker_pid
        self.disk_path = disk_path
        self._files = files
        self._nvml = nvml or Nvml()
        self._cpu_throttling = CpuThrottling(files)
        self._gpus: list[Gpu] = []
        psutil.cpu_percent(None)  # the first call only starts the clock

    def sample(self) -> dict[str, Any]:
        """The fields of a `device` event; `cpu_share` is since the last call, a value not given is None."""
        ram = read_ram(self._files)
        self._gpus = self._nvml.gpus(ram, processes=False)
        return {
            "cpu_share": psutil.cpu_percent(None) / 100,
            "memory_used_bytes": ram.used_bytes,
            "memory_total_bytes": ram.total_bytes,
            "worker_bytes": self._worker_bytes(),
            "disk_free_bytes": self._disk_free_bytes(),
            "gpus": [
                {
                    "index": gpu.index,
                    "name": gpu.name,
                    "used_bytes": gpu.used_bytes,
                    "total_bytes": gpu.total_bytes,
                    "celsius": gpu.celsius,
                    "watts": gpu.watts,
                    "share": gpu.share,
                }
                for gpu in self._gpus
            ],
        }

    def slowdowns(self) -> list[Slowdown]:
        """The devices that ran slower at the last sample, or since the one before it, to protect themselves."""
        slowed = [
            Slowdown(f"GPU {gpu.index} ({gpu.name})", gpu.slowdown, gpu.celsius) for gpu in self._gpus if gpu.slowdown
        ]
        if self._cpu_throttling.rose():
            slowed.append(Slowdown("CPU", CPU_REASON))
        return slowed

    def lost_gpus(self) -> list[int]:
        """The numbers of the GPUs that had fallen off the bus at the last sample."""
        return list(self._nvml.lost)

    def close(self) -> None:
        self._nvml.close()

    def _worker_bytes(self) -> int:
        """RAM that the worker process holds, in bytes; 0 once it has ended."""
        if self.worker_pid is None:
            return 0
        try:
            return psutil.Process(self.worker_pid).memory_info().rss
        except psutil.Error:
            return 0

    def _disk_free_bytes(self) -> int | None:
        try:
            return read_disk(self.disk_path).free_bytes
        except OSError:
            return None
