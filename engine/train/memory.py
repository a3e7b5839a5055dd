"""What training really takes on its device: the process as a whole, and the tensors by component."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from engine.seal.layers.launch import PEAK_MARK_VARIABLE

_PAGE_BYTES = resource.getpagesize()


class MemoryMeter:
    """Bytes the training process holds on `device`: resident memory on a CPU, what torch reserved on a GPU.

    Made before the model is loaded, so that what the process takes without it is known as `context`.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.context_bytes = self._context_bytes()
        self._peak_before_bytes = 0
        self._peak_since_mark_bytes = 0

    def now_bytes(self) -> int:
        """Bytes held now."""
        if self.device.type == "cuda":
            return torch.cuda.memory_reserved(self.device) + self.context_bytes
        return _resident_bytes()

    def peak_bytes(self) -> int:
        """Most bytes held so far."""
        return max(self._peak_before_bytes, self.peak_since_mark_bytes())

    def mark(self) -> bool:
        """Let `peak_since_mark_bytes` begin here. False where the system does not allow it: it then goes on."""
        before = self.peak_bytes()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            try:
                _begin_highest_anew()
            except OSError:
                return False
        self._peak_before_bytes = before
        self._peak_since_mark_bytes = 0
        return True

    def leave_out_loading(self) -> None:
        """On a CPU, let the peak begin here, once the model is loaded.

        While weights are converted from a file its mapped pages count as resident, though the kernel takes them back
        whenever it wants them: a run is not to look larger for them. What conversion freed is handed back as well.
        """
        if self.device.type == "cpu":
            _hand_back_freed()
            if self.mark():
                self._peak_before_bytes = 0

    def peak_since_mark_bytes(self) -> int:
        """Most bytes held since `mark`, or since the beginning where there was none."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.device) + self.context_bytes
        # Not getrusage's ru_maxrss, which begins with what the process that started this one had.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        told = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        # The kernel counts pages by processor and adds them up now and then (since 6.2), so that its highest number may
        # be some pages lower when it is read again: what was told once stays.
        self._peak_since_mark_bytes = max(self._peak_since_mark_bytes, told)
        return self._peak_since_mark_bytes

    def allocator_peaks(self) -> tuple[int | None, int | None]:
        """Most bytes of tensors, and most bytes torch's allocator held for them, since the mark; not known on a CPU."""
        if self.device.type != "cuda":
            return None, None
        return torch.cuda.max_memory_allocated(self.device), torch.cuda.max_memory_reserved(self.device)

    def components(
        self,
        model: torch.nn.Module,
        parameters: Iterable[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> dict[str, int]:
        """The peak by component in bytes. Tensors that last are counted; the rest of the peak is activations.

        What learns is an adapter where the model has one, and otherwise, all or part of, the weights.
        """
        learning = {id(parameter) for parameter in parameters}
        trained = sum(_parameter_bytes(parameter) for parameter in model.parameters() if id(parameter) in learning)
        adapters = trained if hasattr(model, "peft_config") else 0
        measured = {
            "weights": sum(map(_parameter_bytes, model.parameters())) - adapters,
            "adapters": adapters,
            "gradients": trained,
            "optimizer": sum(map(_state_bytes, optimizer.state.values())),
        }
        rest = self.peak_bytes() - self.context_bytes - sum(measured.values())
        return {**measured, "activations": max(0, rest), "loss": 0, "context": self.context_bytes}

    def _context_bytes(self) -> int:
        if self.device.type == "cpu":
            return _resident_bytes()
        torch.zeros(1, device=self.device)
        free, total = torch.cuda.mem_get_info(self.device)
        # Of what is taken on the device, the part that is not torch's tensors: our context, if nobody else is there.
        return _own_device_bytes(self.device) or max(0, total - free - torch.cuda.memory_reserved(self.device))


def _own_device_bytes(device: torch.device) -> int | None:
    """What the driver says this process holds on the device, less torch's own pool; None where it does not say."""
    import pynvml

    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        mine = [
            process.usedGpuMemory
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            if process.pid == _pid() and process.usedGpuMemory is not None
        ]
    except pynvml.NVMLError:
        return None
    return max(0, mine[0] - torch.cuda.memory_reserved(device)) if mine else None


def _pid() -> int:
    # The driver counts in the outermost pid namespace, which is this one unless the process is in a container.
    return int(Path("/proc/self").resolve().name)


def _begin_highest_anew() -> None:
    """Let the kernel's VmHWM begin with what is held now. Raises OSError."""
    # A seal opened it, since no file of /proc can be written within one. Its number may be another file's by now.
    given = Path("/proc/self/fd", os.environ.get(PEAK_MARK_VARIABLE, ""))
    if given.is_symlink() and str(given.readlink()).endswith(f"/{os.getpid()}/clear_refs"):
        os.pwrite(int(given.name), b"5", 0)
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES


def _hand_back_freed() -> None:
    """Hand the heap's free pages back to the system, where its allocator can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _parameter_bytes(parameter: torch.nn.Parameter) -> int:
    state: Any = getattr(parameter, "quant_state", None)
    constants = 0
    if state is not None:
        nested = state.state2
        constants = state.absmax.nbytes + (nested.absmax.nbytes if nested is not None else 0)
    return parameter.nbytes + constants


def _state_bytes(state: dict[str, Any]) -> int:
    return sum(value.nbytes for value in state.values() if isinstance(value, torch.Tensor))
