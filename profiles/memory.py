"""Peak memory of a training step, from the model's geometry and the settings: one number per component.

The parts are counted, not fitted: a training step is taken apart into phases (loading, loss, first layer's
backward, last layer's backward, optimizer step), each phase's tensors are added up, and the peak is the largest
phase. What the process takes besides tensors (`context`) is measured: interpreter and libraries, and the
allocator's slack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.activations import Layer
from profiles.geometry import Geometry
from profiles.problem import printable
from profiles.settings import DTYPE_BYTES, Settings

COMPONENTS = ("weights", "adapters", "gradients", "optimizer", "activations", "loss", "context")
"""Every component, in the order they are shown in."""

_FP32 = 4
_MIB = 1 << 20

# Measured on fresh worker processes (torch 2.13, transformers 5.23, peft 0.21, Linux, glibc).
_CPU_LIBRARIES_BYTES = 480 * _MIB
_CPU_SLACK_SHARE = 0.15
_CPU_ERROR_SHARE = 0.15
# Recomputing frees and takes tensors of many sizes over and over; glibc's heap grows by some layers' worth.
_CPU_SLACK_LAYERS = 5
_CPU_RECOMPUTING_ERROR_SHARE = 0.25
# Published T4 runs: the process exceeded its tensors by 17.9 % (median), what torch reserved by 10.4 %.
_CUDA_CONTEXT_BYTES = 450 * _MIB
_CUDA_SLACK_SHARE = 0.1
_CUDA_ERROR_SHARE = 0.2

# NF4 with double quantisation (QLoRA, arXiv 2305.14314): 4 bits a weight, an 8-bit scale per 64 weights and
# an fp32 scale per 256 of those.
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# bitsandbytes: two 8-bit moments with an fp32 scale per 256 numbers; small tensors keep fp32 moments.
_ADAM_8BIT_BYTES = 2 * (1 + 4 / 256)
_ADAM_8BIT_LEAST = 4096
_ADAM_BYTES = 2 * _FP32


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The peak of one training process on its device. Sizes in bytes; `components` add up to `peak_bytes`."""

    components: Mapping[str, int]
    phase: str
    """Where the peak is: "loading", "loss", "first backward", ..., "optimizer"."""
    error_share: float
    """Share of the peak by which a measurement may differ."""
    reasons: tuple[str, ...]

    @property
    def peak_bytes(self) -> int:
        """What the process takes on its device, context included."""
        return sum(self.components.values())

    @property
    def allocated_bytes(self) -> int:
        """What its tensors take."""
        return self.peak_bytes - self.components["context"]

    def as_dict(self) -> dict[str, Any]:
        return {
            "components": dict(self.components),
            "peak_bytes": self.peak_bytes,
            "allocated_bytes": self.allocated_bytes,
            "phase": self.phase,
            "error_share": self.error_share,
            "reasons": list(self.reasons),
        }


def estimate(geometry: Geometry, settings: Settings) -> MemoryEstimate:
    """Peak memory of training `geometry` under `settings` on the settings' device."""
    phases = _phases(geometry, settings)
    for parts in phases.values():
        parts["context"] = context_bytes(geometry, settings, parts)
    phase, parts = max(phases.items(), key=lambda item: sum(item[1].values()))
    components = {name: parts.get(name, 0) for name in COMPONENTS}
    return MemoryEstimate(components, phase, _error_share(geometry, settings), _reasons(geometry, settings, phase))


def trainable_elements(geometry: Geometry, settings: Settings) -> list[int]:
    """Elements of each tensor that learns."""
    if settings.method == "full":
        return [tensor.elements for tensor in geometry.tensors.values()]
    shapes = adapted_shapes(geometry, settings)
    return [settings.rank * width for inputs, outputs in shapes.values() for width in (inputs, outputs)]


def adapted_shapes(geometry: Geometry, settings: Settings) -> dict[str, tuple[int, int]]:
    """The linear layers that get LoRA matrices, as in Geometry.linear_shapes."""
    if settings.targets == "all-linear":
        return geometry.linear_shapes
    targets = settings.targets
    return {
        name: shape
        for name, shape in geometry.linear_shapes.items()
        if any(name == target or name.endswith(f".{target}") for target in targets)
    }


def weights_bytes(geometry: Geometry, settings: Settings) -> int:
    """The base model as held while training; qlora quantises every linear layer but the output head."""
    width = DTYPE_BYTES[settings.weight_dtype]
    if settings.method != "qlora":
        return geometry.parameters * width
    quantised = sum(inputs * outputs for inputs, outputs in geometry.linear_shapes.values())
    return round(quantised * _NF4_BYTES) + (geometry.parameters - quantised) * width


def cast_bytes(geometry: Geometry, settings: Settings) -> int:
    """Autocast's copies, in the compute dtype, of the fp32 matrices that learn; held through the step."""
    if not settings.autocast:
        return 0
    width = DTYPE_BYTES[settings.compute_dtype]
    if settings.method != "full":
        return sum(trainable_elements(geometry, settings)) * width
    linear = sum(inputs * outputs for inputs, outputs in geometry.linear_shapes.values())
    return (linear + geometry.vocab_size * geometry.hidden_size) * width


def adapters_bytes(geometry: Geometry, settings: Settings) -> int:
    """LoRA matrices, in fp32."""
    return 0 if settings.method == "full" else sum(trainable_elements(geometry, settings)) * _FP32


def gradients_bytes(geometry: Geometry, settings: Settings) -> int:
    """One fp32 number per parameter that learns."""
    return sum(trainable_elements(geometry, settings)) * _FP32


def optimizer_bytes(geometry: Geometry, settings: Settings) -> int:
    """AdamW's two moments. Paged ones count too: they leave the GPU only when it is full."""
    sizes = trainable_elements(geometry, settings)
    if "8bit" not in settings.optimizer:
        return sum(sizes) * _ADAM_BYTES
    small = sum(size for size in sizes if size < _ADAM_8BIT_LEAST)
    return small * _ADAM_BYTES + round((sum(sizes) - small) * _ADAM_8BIT_BYTES)


def activations_bytes(geometry: Geometry, settings: Settings) -> int:
    """What all layers keep at the end of the forward, and the last norm.

    A layer that recomputes keeps only its input.
    """
    layer = Layer.of(geometry, settings)
    every = settings.gradient_checkpointing
    recomputed = math.ceil(geometry.layers / every) if every else 0
    kept = (geometry.layers - recomputed) * layer.saved_bytes() + recomputed * layer.residual_bytes * layer.hidden
    return settings.tokens * (kept + layer.norm_bytes(layer.hidden))


def loss_bytes(geometry: Geometry, settings: Settings) -> int:
    """The chunked cross-entropy at its widest, with every token a target (engine.objectives.next_token).

    States that predict and their gradient; then either a chunk's softmax (its logits, their fp32 copy below fp32,
    and the log-softmax) or its backward (logits, slope, the slope in the compute dtype), with, where the head learns,
    the summed gradient and this chunk's.
    """
    layer = Layer.of(geometry, settings)
    targets = settings.tokens
    chunks = math.ceil(targets / settings.loss_chunk)
    chunk_logits = geometry.vocab_size * min(targets, settings.loss_chunk)
    logits, upcast = layer.compute_bytes, _FP32 if settings.autocast else 0
    softmax = chunk_logits * (logits + upcast + _FP32)
    backward = chunk_logits * (logits + _FP32 + (logits if settings.autocast else 0))
    if settings.method == "full":
        head = _FP32 * geometry.vocab_size * geometry.hidden_size
        softmax += min(chunks - 1, 1) * head
        backward += min(chunks, 2) * head + (head // 2 if settings.autocast else 0)
    return 2 * targets * layer.residual_bytes * layer.hidden + max(softmax, backward)


def dequantised_bytes(geometry: Geometry, settings: Settings) -> int:
    """qlora unpacks one matrix at a time into the compute dtype."""
    if settings.method != "qlora" or not geometry.linear_shapes:
        return 0
    largest = max(inputs * outputs for inputs, outputs in geometry.linear_shapes.values())
    return largest * DTYPE_BYTES[settings.compute_dtype]


def context_bytes(geometry: Geometry, settings: Settings, parts: Mapping[str, int]) -> int:
    """What the process takes besides the tensors `parts` of a phase; measured, see the constants."""
    transient = sum(parts.get(name, 0) for name in ("gradients", "activations", "loss"))
    if settings.device == "cuda":
        return _CUDA_CONTEXT_BYTES + round(_CUDA_SLACK_SHARE * transient)
    slack = round(_CPU_SLACK_SHARE * transient)
    if settings.gradient_checkpointing and transient:
        layer = Layer.of(geometry, settings)
        slack += _CPU_SLACK_LAYERS * settings.tokens * (layer.saved_bytes() + layer.backward_bytes())
    return _CPU_LIBRARIES_BYTES + slack


def _phases(geometry: Geometry, settings: Settings) -> dict[str, dict[str, int]]:
    """Each phase's tensors by component."""
    layer = Layer.of(geometry, settings)
    adapters = adapters_bytes(geometry, settings)
    casts = cast_bytes(geometry, settings)
    full = settings.method == "full"
    lasting = {
        "weights": weights_bytes(geometry, settings) + (casts if full else 0),
        "adapters": adapters + (0 if full else casts),
        "optimizer": optimizer_bytes(geometry, settings),
    }
    gradients = gradients_bytes(geometry, settings)
    accumulated = gradients if settings.gradient_accumulation > 1 else 0
    head_gradient = _FP32 * geometry.vocab_size * geometry.hidden_size if full else 0
    forward = activations_bytes(geometry, settings)
    one_layer = settings.tokens * layer.saved_bytes()
    backward = settings.tokens * layer.backward_bytes() + dequantised_bytes(geometry, settings)
    recomputing = one_layer if settings.gradient_checkpointing else 0
    # A tied head's gradient waits for the embedding's; both and their sum exist when autograd adds them.
    summing = head_gradient * (3 if accumulated else 2) if geometry.tied else 0
    return {
        "loading": {"weights": lasting["weights"] + _unconverted_bytes(geometry, settings)},
        "loss": {
            **lasting,
            "gradients": accumulated,
            "activations": forward,
            "loss": loss_bytes(geometry, settings),
        },
        "first backward": {
            **lasting,
            "gradients": max(accumulated, head_gradient),
            "activations": forward + recomputing + backward,
        },
        "last backward": {**lasting, "gradients": gradients, "activations": one_layer + backward},
        "embedding's backward": {**lasting, "gradients": gradients + summing},
        "optimizer": {**lasting, "gradients": gradients},
    }


def _unconverted_bytes(geometry: Geometry, settings: Settings) -> int:
    """On a CPU, the weight file's mapped pages while weights are converted from it.

    Without a conversion the mapped pages are the weights.
    """
    stored = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}[settings.weight_dtype]
    converts = settings.method == "qlora" or geometry.dtype != stored
    return geometry.weight_bytes if settings.device == "cpu" and converts else 0


def _error_share(geometry: Geometry, settings: Settings) -> float:
    if not geometry.config.has_formula or settings.attention == "eager":
        return 0.4
    if settings.device == "cuda":
        return _CUDA_ERROR_SHARE
    return _CPU_RECOMPUTING_ERROR_SHARE if settings.gradient_checkpointing else _CPU_ERROR_SHARE


def _reasons(geometry: Geometry, settings: Settings, phase: str) -> tuple[str, ...]:
    """What a reader of the numbers should know, in sentences."""
    reasons = [f"The peak is in the phase: {phase}."]
    if settings.device == "cpu":
        reasons.append("Counted is the RAM of the training process; what else the machine runs comes on top.")
    else:
        reasons.append("Counted is the GPU's memory, with the CUDA context and the allocator's slack.")
    if settings.method == "full":
        reasons.append("Full tuning keeps weights, gradients and both moments in fp32: 16 bytes a parameter.")
    if settings.autocast and settings.method == "full":
        reasons.append(f"Autocast keeps a {settings.compute_dtype} copy of every matrix through the step.")
    if settings.optimizer.startswith("paged"):
        reasons.append("A paged optimizer's states are counted; they can move to RAM when the GPU is full.")
    if settings.gradient_checkpointing:
        reasons.append("Layers that recompute keep only their input.")
    if not geometry.config.has_formula:
        reasons.append(f"The formulas were not made for models of type {printable(geometry.model_type)}.")
    return tuple(reasons)
