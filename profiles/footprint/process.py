"""What a training process takes besides its tensors, and in RAM beside a GPU. Bytes.

None of it can be derived: each constant says whether it was measured or is an assumption that measured runs correct.
"""

from __future__ import annotations

from profiles.footprint.step import Step
from profiles.geometry import Geometry
from profiles.settings import Settings

_FP32 = 4
_MIB = 1 << 20

Inputs = tuple[int, int]
"""How many layers recompute, and the bytes of one layer's input."""

# Measured by tests/benchmarks/process_memory.py on fresh worker processes (torch 2.13, transformers 5.23, peft
# 0.21, glibc 2.36): what is left of a process's highest point after its tensors, over models of 27 to 108 M parameters.
_CPU_LIBRARIES_BYTES = 465 * _MIB
# glibc's heap keeps what was freed between larger pieces: a share of what comes and goes in a step; and where layers
# recompute, their inputs are what lies between, each with holes around it so many times its size.
_CPU_SLACK_SHARE = 0.165
_CPU_HOLES_PER_INPUT = 8
# Above this glibc maps a piece for itself and hands it back whole (M_MMAP_THRESHOLD_MAX of 64-bit systems). Of larger
# inputs 2.4 times their size was measured (one setting); the same as before it is taken to stay until that is more.
_HEAP_PIECE_BYTES = 32 * _MIB
_CPU_LARGE_HOLES_PER_INPUT = 2.5
# The worst of those runs, and for what they did not cover twice as much again: 3 % and, with recomputing or 4-bit
# matrices that are unpacked between what is kept, 10 %.
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


def context_bytes(settings: Settings, capability: tuple[int, int] | None, coming_and_going: int, inputs: Inputs) -> int:
    """What the process takes besides tensors, when `coming_and_going` bytes of these do not last.

    `inputs` are those of the layers that recompute: how many, and the bytes of one.
    """
    if settings.device == "cuda":
        context = _CUDA_CONTEXT_BYTES[8]
        if capability is not None:
            context = _CUDA_CONTEXT_BYTES.get(capability[0], _CUDA_LATEST_CONTEXT_BYTES)
        return context + round(_CUDA_SLACK_SHARE * coming_and_going)
    layers, size = inputs
    holes = layers * max(_CPU_HOLES_PER_INPUT * min(size, _HEAP_PIECE_BYTES), round(_CPU_LARGE_HOLES_PER_INPUT * size))
    return _CPU_LIBRARIES_BYTES + round(_CPU_SLACK_SHARE * coming_and_going) + holes


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
