"""Telling a GPU that is lost and one whose driver failed, from what CUDA, its libraries and NVML say of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from profiles.problem import printable

# The device is off the bus or its memory is broken: another try meets the same. In the order of the list: the driver
# (Xid 79), NVML's words and codes, ECC and NVLink errors that could not be corrected (words and codes), and what CUDA
# says of a device that it cannot open any more.
_LOST = re.compile(
    r"fallen off the bus"
    r"|GPU is lost|GPU_IS_LOST|GpuIsLost|Unable to determine the device handle"
    r"|uncorrectable ECC error|ECCUncorrectable|ECC_UNCORRECTABLE"
    r"|uncorrectable NVLink error|NvlinkUncorrectable|NVLINK_UNCORRECTABLE"
    r"|no CUDA-capable device is detected|cudaErrorNoDevice|CUDA_ERROR_NO_DEVICE"
    r"|CUDA-capable device\S* \S+ busy or unavailable|cudaErrorDevicesUnavailable|CUDA_ERROR_DEVICE_UNAVAILABLE"
)
# A kernel on the device failed, or the driver reset it: a new process may well go on. In the order of the list: CUDA's
# words for its errors 719, 700, 715, 716, 714, 718, 717, 702, 226, 709, 4, 803 and 999, the libraries that run on it,
# and NVML.
_FAULT = re.compile(
    r"unspecified launch failure|an illegal memory access was encountered|an illegal instruction was encountered"
    r"|CUDA error: (?:misaligned address|hardware stack error|invalid program counter|context is destroyed)"
    r"|operation not supported on global/shared address space|the launch timed out and was terminated"
    r"|over nvlink or a hardware error|driver shutting down"
    r"|unsupported display driver / cuda driver combination|CUDA error: unknown error"
    r"|(?:CUBLAS|CUBLASLT|CUSPARSE|CUSOLVER|CUDNN)_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)"
    r"|[Dd]river/library version mismatch|GPU requires reset|NVML_ERROR_RESET_REQUIRED"
)
# A kernel's own check failed ("device-side assert triggered"): an index out of its bounds, which comes again whenever
# the same rows do. That is a fault in the code or what it was given, and nothing of the device's.


@dataclass(frozen=True, slots=True)
class GpuWords:
    """What was said of a GPU: in which `line`, and whether that means that it is lost or that its driver failed."""

    means: Literal["lost", "driver failed"]
    line: str


def words_of_gpu(text: str) -> GpuWords | None:
    """What `text` says of a GPU that is lost or whose driver failed; None where it says nothing of that."""
    if (said := _LOST.search(text)) is not None:
        return GpuWords("lost", _line_of(text, said.start()))
    if (said := _FAULT.search(text)) is not None:
        return GpuWords("driver failed", _line_of(text, said.start()))
    return None


def _line_of(text: str, place: int) -> str:
    """The line of `text` that `place` is in, as a sentence can quote it."""
    begins = text.rfind("\n", 0, place) + 1
    return printable(text[begins:].splitlines()[0].strip(), 200)
