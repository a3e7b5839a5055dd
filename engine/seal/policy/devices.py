"""The devices of a sealed process, and the GPU's, which must be there before it starts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_DEVICES, _KERNEL = Path("/dev"), Path("/proc")

# What computing opens, and what others who shut CUDA in found it to need.
#
# NVIDIA's: libnvidia-container gives these, and no others, to a container that computes. nvidia-uvm-tools too: drivers
# from 570 on end cuInit with error 304 where it is refused (nono's pull request 651), or try to make it anew (snapd's
# cuda-support).
_NVIDIA = ("nvidiactl", "nvidia[0-9]*", "nvidia-uvm", "nvidia-uvm-tools")
# Jetson's, as NVIDIA's NemoClaw lists them: not those of its cameras and video engines, which are called nvhost too.
_JETSON = ("nvmap", "nvhost-ctrl", "nvhost-*gpu", "nvgpu", "host1x-fence")
# WSL's; and AMD's, whose ROCm opens a GPU by kfd and by the render node of its own.
_OTHERS = ("dxg", "kfd", "dri/renderD*")
# Left shut. Of the screen: nvidia-modeset and dri/card*, which libnvidia-container gives only to who displays. What
# reaches GPUs and machines beside: nvidia-nvswitch*, nvidia-nvlink, nvidia-caps-imex-channels, infiniband, gdrdrv,
# nvidia-fs*.
_GPU_PATTERNS = (*_NVIDIA, *_JETSON, *_OTHERS)
# A driver that no process keeps awake takes up to half a minute on a machine of eight GPUs.
_DRIVER_SECONDS = 60.0
# One that was killed while it waits for the hardware ends when that answers, if ever.
_ENDING_SECONDS = 2.0


def gpu_devices() -> list[str]:
    """The device files of this machine's GPUs; a folder where a driver keeps several in one."""
    found = [path for pattern in _GPU_PATTERNS for path in _DEVICES.glob(pattern)]
    return sorted(map(str, (*found, *(path for path in _instances() if path.exists()))))


def touch_gpu() -> None:
    """Have the driver make the device files that it makes when a GPU is first used after a start of the machine.

    It does so through a program that becomes root by its file's mode (nvidia-modprobe), which none can within a seal.
    In a child process, since a driver may hang. Does nothing without an NVIDIA GPU, or where they are there."""
    has_driver = (_KERNEL / "driver/nvidia").exists() or any(_DEVICES.glob("nvidia[0-9]*"))
    if not has_driver or _are_there():
        return
    program = "import ctypes; ctypes.CDLL('libcuda.so.1').cuInit(0)"
    with suppress(OSError, subprocess.TimeoutExpired):  # the worker tells what is wrong with the driver
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            child.wait(_DRIVER_SECONDS)
        except BaseException:
            child.kill()
            # Not for as long as it takes: within the driver, no signal ends it.
            child.wait(_ENDING_SECONDS)
            raise


def _are_there() -> bool:
    """Some of udev's rules make nvidia-uvm, and leave nvidia-uvm-tools to the first who computes."""
    every = all(any(_DEVICES.glob(pattern)) for pattern in _NVIDIA)
    return every and all(path.exists() for path in _instances())


def _instances() -> Iterator[Path]:
    """Device files of the parts that a GPU was divided into (MIG), by the kernel's word of which there are: without
    them the part cannot be computed on. The others of that folder steer the dividing, and are left shut."""
    for access in (_KERNEL / "driver/nvidia/capabilities").glob("gpu[0-9]*/mig/**/access"):
        with suppress(OSError):
            number = re.search(r"DeviceFileMinor:\s*(\d+)", access.read_text(encoding="ascii", errors="replace"))
            if number is not None:
                yield _DEVICES / "nvidia-caps" / f"nvidia-cap{number[1]}"
