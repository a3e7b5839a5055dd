"""NVIDIA GPUs through NVML: what is visible to CUDA, how full it is and who uses it.

Nothing here raises: a missing driver, a GPU that fell off the bus or a value the driver does not give
becomes a note or None. AMD, Intel and Apple GPUs are not read.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from profiles.machine.host import Ram
from profiles.machine.slowdown import gpu_slowdown
from profiles.problem import printable


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory on a GPU; `bytes` is None where the driver does not say."""

    pid: int
    user: str
    command: str
    bytes: int | None


# Lowest compute capability that has it: tensor cores for 8-bit integers (what LLM.int8 needs), FlashAttention-2 and
# bf16 since Ampere, 8-bit floats since Ada (NVIDIA's CUDA programming guide, FlashAttention's requirements).
_INT8_SINCE, _AMPERE, _FP8_SINCE = (7, 5), (8, 0), (8, 9)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU or one MIG slice. `index` is nvidia-smi's; `used_bytes` includes what the driver reserves."""

    index: int
    uuid: str
    name: str
    total_bytes: int
    used_bytes: int
    capability: tuple[int, int] | None
    native_bf16: bool
    celsius: float | None
    watts: float | None
    share: float | None
    processes: tuple[GpuProcess, ...]
    unified: bool = False
    """Whether it has no memory of its own but shares the machine's."""
    slowdown: str = ""
    """Why it runs slower at the moment to protect itself, in words; "" where it does not."""

    @property
    def free_bytes(self) -> int:
        return self.total_bytes - self.used_bytes

    @property
    def int8(self) -> bool:
        """Whether it multiplies 8-bit integers fast enough to be of use."""
        return self.capability is not None and self.capability >= _INT8_SINCE

    @property
    def flash_attention(self) -> bool:
        """Whether attention kernels that never hold the square of scores, for documents in one row, run on it."""
        return self.capability is not None and self.capability >= _AMPERE

    @property
    def fp8(self) -> bool:
        return self.capability is not None and self.capability >= _FP8_SINCE


class Nvml:
    """An open NVML library. `library` is the pynvml module or a stand-in; `notes` says what did not work, and `lost`
    numbers the GPUs that have fallen off the bus, each as of the last reading."""

    def __init__(self, library: Any = None, environment: Mapping[str, str] = os.environ):
        self.notes: list[str] = []
        self.lost: list[int] = []
        self._library = library or _import_pynvml()
        self._visible = environment.get("CUDA_VISIBLE_DEVICES")
        self._order = environment.get("CUDA_DEVICE_ORDER")
        self._open = False
        try:
            self._library.nvmlInit()
        except self._library.NVMLError as error:
            self.notes.append(_why_no_gpu(self._library, error))
            return
        self._open = True

    def close(self) -> None:
        if self._open:
            self._open = False
            self._ask(self._library.nvmlShutdown)

    def gpus(self, ram: Ram, processes: bool = True) -> list[Gpu]:
        """The GPUs CUDA would see, in its order; those that share the machine's memory report `ram`."""
        if not self._open:
            return []
        self.notes.clear()
        self.lost.clear()
        try:
            count = self._library.nvmlDeviceGetCount()
        except self._library.NVMLError as error:
            self.notes.append(f"The NVIDIA driver does not list its GPUs ({error}); training runs on the CPU.")
            return []
        found = [gpu for index in range(count) for gpu in self._read_index(index, ram, processes)]
        if not count:
            self.notes.append("The NVIDIA driver is loaded but sees no GPU; training runs on the CPU.")
        visible = _visible_to_cuda(found, self._visible)
        if found and not visible:
            self.notes.append(
                f"CUDA_VISIBLE_DEVICES is {printable(repr(self._visible))}, which hides every GPU; "
                "training runs on the CPU."
            )
        elif len(visible) < len(found):
            self.notes.append(f"CUDA_VISIBLE_DEVICES hides {len(found) - len(visible)} of {len(found)} GPUs.")
        if len({gpu.name for gpu in found if not gpu.uuid.startswith("MIG-")}) > 1 and self._order != "PCI_BUS_ID":
            self.notes.append(
                "These GPUs differ, and CUDA numbers them fastest first; "
                "set CUDA_DEVICE_ORDER=PCI_BUS_ID so that the numbers here hold there too."
            )
        return visible

    def _read_index(self, index: int, ram: Ram, processes: bool) -> list[Gpu]:
        """The GPU at NVML's `index`, or its MIG slices, or nothing and a note."""
        library = self._library
        try:
            handle = library.nvmlDeviceGetHandleByIndex(index)
            if slices := self._mig_slices(handle):
                self.notes.append(f"GPU {index} is split into {len(slices)} MIG slices; a run uses one of them.")
                return [self._read(index, part, handle, ram, processes) for part in slices]
            return [self._read(index, handle, handle, ram, processes)]
        except library.NVMLError as error:
            if isinstance(error, library.NVMLError_GpuIsLost):
                self.lost.append(index)
                self.notes.append(f"GPU {index} has fallen off the bus and is left out; a reboot brings it back.")
            else:
                self.notes.append(f"GPU {index} cannot be read ({error}) and is left out.")
        except UnicodeDecodeError:
            self.notes.append(f"GPU {index} gives a name that is not text and is left out.")
        return []

    def _mig_slices(self, handle: Any) -> list[Any]:
        mode = self._ask(self._library.nvmlDeviceGetMigMode, handle)
        if not mode or mode[0] != self._library.NVML_DEVICE_MIG_ENABLE:
            return []
        count = self._ask(self._library.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
        slices = (self._ask(self._library.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot) for slot in range(count))
        return [part for part in slices if part is not None]  # most slots of a GPU are empty

    def _read(self, index: int, handle: Any, board: Any, ram: Ram, processes: bool) -> Gpu:
        """`handle` is the GPU or a MIG slice of the GPU `board`, which has the sensors. Raises NVMLError."""
        library = self._library
        try:
            memory = library.nvmlDeviceGetMemoryInfo(handle)
            total_bytes, used_bytes = memory.total, memory.total - memory.free
        except library.NVMLError_NotSupported:
            total_bytes = used_bytes = 0
        # Boards whose GPU shares the CPU's memory (GB10, Jetson) have no memory of their own to report.
        if unified := not total_bytes:
            total_bytes, used_bytes = ram.total_bytes, ram.used_bytes
            self.notes.append(f"GPU {index} has no memory of its own; the machine's is shown.")
        capability = self._ask(library.nvmlDeviceGetCudaComputeCapability, board)
        celsius = self._ask(library.nvmlDeviceGetTemperature, board, library.NVML_TEMPERATURE_GPU)
        milliwatts = self._ask(library.nvmlDeviceGetPowerUsage, board)
        rates = self._ask(library.nvmlDeviceGetUtilizationRates, handle)
        return Gpu(
            index=index,
            uuid=self._ask(library.nvmlDeviceGetUUID, handle) or "",
            name=printable(self._ask(library.nvmlDeviceGetName, handle) or library.nvmlDeviceGetName(board)),
            total_bytes=total_bytes,
            used_bytes=used_bytes,
            capability=None if capability is None else (capability[0], capability[1]),
            native_bf16=capability is not None and tuple(capability) >= _AMPERE,
            celsius=None if celsius is None else float(celsius),
            watts=None if milliwatts is None else milliwatts / 1000,
            share=None if rates is None else rates.gpu / 100,
            processes=self._processes(handle) if processes else (),
            unified=unified,
            slowdown=gpu_slowdown(library, self._clock_reasons(board)),
        )

    def _clock_reasons(self, board: Any) -> int:
        """NVML's bits for what holds a GPU's clocks down; 0 where the library or the driver does not say."""
        library = self._library
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            # Newer libraries ask newer drivers by the first name, older ones only have the second.
            if (function := getattr(library, name, None)) and (reasons := self._ask(function, board)) is not None:
                return reasons
        return 0

    def _processes(self, handle: Any) -> tuple[GpuProcess, ...]:
        held: dict[int, int | None] = {}
        library = self._library
        for list_processes in (
            library.nvmlDeviceGetComputeRunningProcesses,
            library.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            for process in self._ask(list_processes, handle) or ():
                # A process that both computes and draws is in both lists, with all its memory in each.
                held[process.pid] = max((held.get(process.pid), process.usedGpuMemory), key=lambda size: size or 0)
        by_size = sorted(held.items(), key=lambda item: (-(item[1] or 0), item[0]))
        return tuple(_describe_process(pid, size) for pid, size in by_size)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's answer, or None where this GPU or this driver has none."""
        try:
            return function(*arguments)
        except self._library.NVMLError as error:
            if isinstance(error, self._library.NVMLError_GpuIsLost):
                raise
            return None


def _import_pynvml() -> Any:
    return importlib.import_module("pynvml")  # here, not above: only machines asked for their GPUs need it


def _why_no_gpu(library: Any, error: Exception) -> str:
    if isinstance(error, library.NVMLError_LibraryNotFound):
        return "There is no NVIDIA driver (libnvidia-ml.so.1 was not found); training runs on the CPU."
    if isinstance(error, library.NVMLError_DriverNotLoaded):
        return "The NVIDIA driver is installed but not loaded (try `nvidia-smi`); training runs on the CPU."
    if isinstance(error, library.NVMLError_LibRmVersionMismatch):
        return "The NVIDIA driver was updated under a running kernel module; reboot to use the GPUs."
    return f"The NVIDIA driver does not answer ({error}); training runs on the CPU."


def _describe_process(pid: int, size: int | None) -> GpuProcess:
    """The process by name and owner; "?" where it is another container's or has just ended."""
    try:
        process = psutil.Process(pid)
        return GpuProcess(pid, printable(process.username()), printable(process.name()), size)
    except (psutil.Error, KeyError):  # KeyError: the owner's number has no name here
        return GpuProcess(pid, "?", "?", size)


def _visible_to_cuda(gpus: list[Gpu], visible: str | None) -> list[Gpu]:
    """`gpus` as CUDA_VISIBLE_DEVICES chooses and orders them.

    CUDA's rules: numbers or unique starts of UUIDs, read up to the first that names nothing; the same device
    twice hides all. Of a GPU in MIG mode a number chooses the first slice.
    """
    if visible is None:
        return gpus
    chosen: list[Gpu] = []
    for entry in (text.strip() for text in visible.split(",")):
        if entry.isdigit():
            matches = [gpu for gpu in gpus if gpu.index == int(entry)][:1]
        else:
            matches = [gpu for gpu in gpus if entry.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(entry)]
        if len(matches) != 1:
            break
        if matches[0] in chosen:
            return []
        chosen.append(matches[0])
    return chosen
