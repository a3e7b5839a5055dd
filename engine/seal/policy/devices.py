"""The devices of a sealed process, and the GPU's, which must be there before it starts."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_DEVICES = Path("/dev")

COMMON_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# NVIDIA's (also Jetson's, and WSL's), and AMD's. Not those by which GPUs of several machines share their memory
# (nvidia-caps-imex-channels, infiniband): these lead out.
_GPU_PATTERNS = (
    "nvidiactl",
    "nvidia[0-9]*",
    "nvidia-uvm",
    "nvidia-uvm-tools",
    "nvidia-modeset",
    "nvidia-caps",
    "nvidia-nvswitch*",
    "nvhost*",
    "nvmap",
    "dxg",
    "kfd",
    "dri",
)
# A driver that no process keeps awake takes up to half a minute on a machine of eight GPUs.
_DRIVER_SECONDS = 60.0


def gpu_devices() -> list[str]:
    """The device files of this machine's GPUs; folders where a driver keeps several in one."""
    return sorted(str(path) for pattern in _GPU_PATTERNS for path in _DEVICES.glob(pattern))


def touch_gpu() -> None:
    """Have the driver make the device files that it makes when a GPU is first used after a start of the machine.

    It does so through a program that becomes root by its file's mode (nvidia-modprobe), which none can within a seal.
    In a child process, since a driver may hang. Does nothing without an NVIDIA GPU, or where they are there."""
    has_driver = Path("/proc/driver/nvidia").exists() or any(_DEVICES.glob("nvidia[0-9]*"))
    if not has_driver or (_DEVICES / "nvidia-uvm").exists():
        return
    program = "import ctypes; ctypes.CDLL('libcuda.so.1').cuInit(0)"
    with suppress(OSError, subprocess.TimeoutExpired):  # the worker tells what is wrong with the driver
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_DRIVER_SECONDS,
            check=False,
        )
