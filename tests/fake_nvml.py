"""A stand-in for the pynvml module: boards described as data, real pynvml's errors and constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

GIB = 1 << 30


@dataclass
class Board:
    """A GPU or a MIG slice; `faults` maps the name of an NVML call to the error it raises."""

    uuid: str
    name: str = "NVIDIA Test GPU"
    total: int = 24 * GIB
    used: int = 1 * GIB
    capability: tuple[int, int] = (8, 9)
    clock_reasons: int = 0
    processes: list[tuple[int, int | None]] = field(default_factory=list)
    slices: list[Board] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)


class FakeNvml:
    """Answers like pynvml for `boards`; `init_error` is an NVML error number that nvmlInit raises."""

    def __init__(self, *boards: Board, init_error: int | None = None):
        self.boards, self.init_error = boards, init_error
        self.inits = self.shutdowns = 0
        self._answers: dict[str, Callable[..., Any]] = {
            "nvmlDeviceGetName": lambda board: board.name,
            "nvmlDeviceGetUUID": lambda board: board.uuid,
            "nvmlDeviceGetMemoryInfo": lambda board: SimpleNamespace(
                total=board.total, used=board.used, free=board.total - board.used
            ),
            "nvmlDeviceGetCudaComputeCapability": lambda board: board.capability,
            "nvmlDeviceGetTemperature": lambda board, sensor: 61,
            "nvmlDeviceGetPowerUsage": lambda board: 212_500,
            "nvmlDeviceGetUtilizationRates": lambda board: SimpleNamespace(gpu=37, memory=5),
            "nvmlDeviceGetCurrentClocksEventReasons": lambda board: board.clock_reasons,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda board: board.clock_reasons,
            "nvmlDeviceGetComputeRunningProcesses": lambda board: [
                SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in board.processes
            ],
            "nvmlDeviceGetGraphicsRunningProcesses": lambda board: [],
            "nvmlDeviceGetMigMode": lambda board: [int(bool(board.slices)), int(bool(board.slices))],
            "nvmlDeviceGetMaxMigDeviceCount": lambda board: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": self._mig_slice,
        }

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)
        self.inits += 1

    def nvmlShutdown(self) -> None:
        self.shutdowns += 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:
        board = self.boards[index]
        if error := board.faults.get("nvmlDeviceGetHandleByIndex"):
            raise pynvml.NVMLError(error)
        return board

    def __getattr__(self, name: str) -> Any:
        if name not in self._answers:
            return getattr(pynvml, name)  # error classes and constants

        def call(board: Board, *arguments: Any) -> Any:
            if error := board.faults.get(name):
                raise pynvml.NVMLError(error)
            return self._answers[name](board, *arguments)

        return call

    @staticmethod
    def _mig_slice(board: Board, slot: int) -> Board:
        if slot >= len(board.slices):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return board.slices[slot]
