"""What a training process takes besides its tensors, and in RAM beside a GPU. Bytes.

None of it can be derived: each constant says whether it was measured or is an assumption that measured runs correct.
"""

from __future__ import annotations

from dataclasses import dataclass

from profiles.footprint.step import Step
from profiles.geometry import Geometry
from profiles.settings import Settings

_FP32 = 4
_MIB = 1 << 20

# Measured by tests/benchmarks/process_memory.py on fresh worker processes (torch 2.13, transformers 5.23, peft
# 0.21, glibc 2.36): what is left of a process's highest point after its tensors, over models of 27 to 146 M parameters.
_CPU_LIBRARIES_BYTES = 440 * _MIB
# glibc's heap keeps what was freed between larger pieces: a share of what comes and goes in a step; and where layers
# recompute, their inputs are what lies between, each with holes around it so many times its size.
_CPU_SLACK_SHARE = 0.165
_CPU_HOLES_PER_INPUT = 8
# Matrices of 4 bits leave a share of their unpacked size when they are packed, and in a step, where each is unpacked
# between what is kept, a further share of what comes and goes: least squares over 14 runs.
_CPU_PACKING_SHARE = 0.17
_CPU_UNPACKING_SLACK_SHARE = 0.18
# Above this glibc maps a piece for itself and hands it back whole (M_MMAP_THRESHOLD_MAX of 64-bit systems). Of larger
# inputs 2.4 times their size was measured (one setting); the same as before it is taken to stay until that is more.
_HEAP_PIECE_BYTES = 32 * _MIB
_CPU_LARGE_HOLES_PER_INPUT = 2.5
# What all of those runs stayed within, the second with recomputing or with 4-bit matrices that are unpacked between
# what is kept.
_CPU_ERROR_SHARE = 0.06
_CPU_HOLES_ERROR_SHARE = 0.12
# Driver context, torch's kernels as they are loaded, and cuBLAS's workspace (which is larger from Hopper on). Public
# T4 runs took 450 MiB. The others are assumed: later cards have more multiprocessors, each with a share of the context.
_CUDA_CONTEXT_BYTES = {7: 450 * _MIB, 8: 500 * _MIB, 9: 620 * _MIB}
_CUDA_LATEST_CONTEXT_BYTES = 680 * _MIB
# Published T4 runs with fused attention: torch reserved 10.4 % more than was allocated (median; 25 % at most). What
# comes and goes is what fragments; expandable segments, which our workers ask for, leave less of it.
_CUDA_SLACK_SHARE = 0.1
# On a GPU the tensors are counted (within 1 % of real steps on a CPU, and of replayed ones at any size), so the error
# is that of the context and of the slack, which may as well be twice what is assumed: together that is the 25 % of the
# worst published run. No GPU has measured this yet; rows that do narrow or widen it (profiles.learnt).
_CUDA_TENSOR_ERROR_SHARE = 0.02
_CUDA_CONTEXT_ERROR_BYTES = 200 * _MIB
_UNKNOWN_ERROR_SHARE = 0.4
# Interpreter, libraries and torch's own buffers in the process of a GPU run: assumed.
_HOST_LIBRARIES_BYTES = 2560 * _MIB


@dataclass(frozen=True, slots=True)
class Passing:
    """The tensors that do not last, as far as they tell what is left between them."""

    peak_bytes: int
    recomputed_layers: int
    input_bytes: int
    """Of one such layer."""
    packed_bytes: int
    """Of all matrices of 4 bits while they are unpacked, which they are one by one."""
    largest_packed_bytes: int


def context_bytes(settings: Settings, capability: tuple[int, int] | None, passing: Passing) -> int:
    """What the process takes besides tensors."""
    if settings.device == "cuda":
        context = _CUDA_CONTEXT_BYTES[8]
        if capability is not None:
            context = _CUDA_CONTEXT_BYTES.get(capability[0], _CUDA_LATEST_CONTEXT_BYTES)
        return context + round(_CUDA_SLACK_SHARE * passing.peak_bytes)
    slack, size = _CPU_SLACK_SHARE * passing.peak_bytes, passing.input_bytes
    if 0 < passing.largest_packed_bytes < _HEAP_PIECE_BYTES:
        slack += _CPU_UNPACKING_SLACK_SHARE * passing.peak_bytes + _CPU_PACKING_SHARE * passing.packed_bytes
    holes = max(_CPU_HOLES_PER_INPUT * min(size, _HEAP_PIECE_BYTES), round(_CPU_LARGE_HOLES_PER_INPUT * size))
    return _CPU_LIBRARIES_BYTES + round(slack) + passing.recomputed_layers * holes


def host_bytes(geometry: Geometry, settings: Settings, step: Step) -> int:
    """RAM of a GPU run's process: its libraries, inputs of layers that wait there, paged optimizer states that may be
    moved there, and the largest tensor on its way to or from a file."""
    if settings.device != "cuda":
        return 0
    waiting = step.host_per_token * settings.tokens
    paged = step.lasting.optimizer if settings.optimizer.startswith("paged") else 0
    largest = max(geometry.vocab_size * geometry.hidden_size, step.lasting.largest) * _FP32
    return _HOST_LIBRARIES_BYTES + waiting + paged + largest


def error_share(settings: Settings, *, known: bool, tensors: int, context: int, coming_and_going: int) -> float:
    """Share by which a measured peak may differ; `known`: whether the model's family is one that was checked.

    The peak is `tensors` and `context` (bytes); `coming_and_going` of the former do not last.
    """
    if not known or settings.attention == "eager":
        return _UNKNOWN_ERROR_SHARE
    if settings.device == "cuda":
        slack = _CUDA_SLACK_SHARE * coming_and_going
        error = _CUDA_TENSOR_ERROR_SHARE * tensors + slack + _CUDA_CONTEXT_ERROR_BYTES
        return min(_UNKNOWN_ERROR_SHARE, error / (tensors + context))
    leaves_holes = settings.gradient_checkpointing or settings.method == "qlora"
    return _CPU_HOLES_ERROR_SHARE if leaves_holes else _CPU_ERROR_SHARE
