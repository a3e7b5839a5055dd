"""What stays in memory from step to step: weights, adapters, gradients' sizes, optimizer state. Sizes in bytes.

Everything is counted tensor by tensor, and tensors of one shape only once: a model has a few dozen shapes.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from profiles.geometry import Geometry
from profiles.settings import DTYPE_BYTES, Settings
from profiles.shapes.tensor_names import HEAD, HEAD_BIAS, LAYER

_FP32 = 4
# bitsandbytes' NF4 (QLoRA, arXiv 2305.14314): two weights a byte and a scale per 64 weights, in fp32; or, quantised
# twice, in a byte, with an fp32 scale per 256 of those. Each matrix has its 16 levels, and with nested scales theirs
# (256) and an offset.
_NF4_BLOCK, _NESTED_BLOCK = 64, 256
_NF4_LEVELS_BYTES, _NESTED_LEVELS_BYTES = 16 * _FP32, 256 * _FP32 + _FP32
# bitsandbytes' 8-bit AdamW: a byte per moment and an fp32 scale per 256; tensors below 4,096 numbers keep fp32 moments.
_ADAM_8BIT_BLOCK = 256
_ADAM_8BIT_LEAST = 4096
_ADAM_8BIT_LEVELS_BYTES = 2 * 256 * _FP32
_FINAL_NORMS = ("norm.weight", "ln_f.weight", "ln_f.bias", "final_layernorm.weight", "final_layernorm.bias")

Shapes = Counter[tuple[int, ...]]
"""How many tensors there are of each shape."""


def adapted_shapes(geometry: Geometry, settings: Settings) -> dict[str, tuple[int, int]]:
    """The linear layers that get LoRA matrices, as in Geometry.linear_shapes."""
    if settings.method not in ("lora", "qlora"):
        return {}
    if settings.targets == "all-linear":
        return geometry.linear_shapes
    targets = settings.targets
    return {
        name: shape
        for name, shape in geometry.linear_shapes.items()
        if any(name == target or name.endswith(f".{target}") for target in targets)
    }


def is_final_norm(name: str) -> bool:
    """Whether `name` is a tensor of the norm after the last layer."""
    return not LAYER.search(name) and name.endswith(_FINAL_NORMS) and "emb" not in name


def head_tensors(geometry: Geometry) -> set[str]:
    """Names of the output head's own tensors, which are not loaded where no tokens are predicted."""
    return {name for name in geometry.tensors if HEAD.search(name) or HEAD_BIAS.search(name)}


def learning_tensors(geometry: Geometry, settings: Settings) -> set[str]:
    """Names of the model's own tensors that learn."""
    if settings.method == "full":
        return set(geometry.tensors) - (set() if settings.writes else head_tensors(geometry))
    if settings.method != "partial":
        return set()
    first = geometry.layers - settings.trained_layers
    return {
        name
        for name in geometry.tensors
        if ((match := LAYER.search(name)) and int(match[3]) >= first) or is_final_norm(name)
    }


@dataclass(frozen=True)
class Lasting:
    """Sizes that last from step to step. `learning` counts the tensors that learn by shape."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    learning: Shapes
    largest: int
    """Elements of the largest tensor that learns."""
    second: int
    """Elements of the largest matrix of another shape; 0 where all are of one."""

    @property
    def trainable(self) -> int:
        """Numbers that learn."""
        return self.gradients // _FP32


def lasting(geometry: Geometry, settings: Settings) -> Lasting:
    """Weights, adapters, gradients and optimizer state of a run."""
    learning: Shapes = Counter()
    if settings.method in ("lora", "qlora"):
        for (inputs, outputs), count in Counter(adapted_shapes(geometry, settings).values()).items():
            learning[settings.rank, inputs] += count
            learning[outputs, settings.rank] += count
    else:
        learning.update(geometry.tensors[name].shape for name in learning_tensors(geometry, settings))
    elements = sum(math.prod(shape) * count for shape, count in learning.items())
    adapts = settings.method in ("lora", "qlora")
    sizes = [*sorted({math.prod(shape) for shape in learning}, reverse=True)[:2], 0, 0]
    return Lasting(
        weights=_weights_bytes(geometry, settings, 0 if adapts else elements),
        adapters=elements * _FP32 if adapts else 0,
        gradients=elements * _FP32,
        optimizer=_optimizer_bytes(learning, settings.optimizer),
        learning=learning,
        largest=sizes[0],
        second=sizes[1],
    )


def _weights_bytes(geometry: Geometry, settings: Settings, learning: int) -> int:
    """The base model: what learns in fp32, the rest in the compute dtype or, for qlora, its linear layers in 4 bits.

    bitsandbytes leaves the embedding, norms, biases, the output head and the experts of a mixture as they are.
    """
    width = DTYPE_BYTES[settings.weight_dtype]
    loaded = geometry.parameters
    if not settings.writes:
        loaded -= sum(geometry.tensors[name].elements for name in head_tensors(geometry))
    bytes_ = (loaded - learning) * width + learning * _FP32
    if settings.method == "qlora":
        for (inputs, outputs), count in Counter(geometry.quantisable_shapes.values()).items():
            bytes_ += count * (nf4_bytes(inputs * outputs, settings.double_quantisation) - inputs * outputs * width)
    return bytes_ + _rotary_buffers(geometry)


def nf4_bytes(elements: int, double_quantisation: bool) -> int:
    """A matrix of `elements` in NF4 with its scales."""
    blocks = math.ceil(elements / _NF4_BLOCK)
    packed = math.ceil(elements / 2) + _NF4_LEVELS_BYTES
    if not double_quantisation:
        return packed + blocks * _FP32
    return packed + blocks + math.ceil(blocks / _NESTED_BLOCK) * _FP32 + _NESTED_LEVELS_BYTES


def _rotary_buffers(geometry: Geometry) -> int:
    """transformers' rotary module keeps its inverse frequencies twice, in Gemma 3 for each kind of layer."""
    kinds = len(set(geometry.config.layer_types)) if geometry.model_type == "gemma3_text" else 1
    return 2 * kinds * geometry.head_dim // 2 * _FP32 if geometry.model_type != "gpt2" else 0


def _optimizer_bytes(learning: Shapes, optimizer: str) -> int:
    """State of the optimizer. torch's keep a step counter per tensor as well."""
    if optimizer == "adafactor":
        return sum(count * (_adafactor_numbers(shape) + 1) for shape, count in learning.items()) * _FP32
    sizes = [(math.prod(shape), count) for shape, count in learning.items()]
    if "8bit" not in optimizer:
        counters = _FP32 if optimizer == "adamw" else 0
        return sum(count * (2 * size * _FP32 + counters) for size, count in sizes)
    quantised = [(size, count) for size, count in sizes if size >= _ADAM_8BIT_LEAST]
    small = sum(size * count for size, count in sizes if size < _ADAM_8BIT_LEAST)
    blocks = sum(count * math.ceil(size / _ADAM_8BIT_BLOCK) for size, count in quantised)
    return (
        2 * _FP32 * small
        + 2 * sum(size * count for size, count in quantised)
        + 2 * _FP32 * blocks
        + (_ADAM_8BIT_LEVELS_BYTES if quantised else 0)
    )


def _adafactor_numbers(shape: tuple[int, ...]) -> int:
    """Adafactor (arXiv 1804.04235): a matrix's second moment as a row and a column, a vector's in full."""
    if len(shape) < 2:
        return math.prod(shape)
    leading = math.prod(shape[:-2])
    return leading * (shape[-2] + shape[-1])


def optimizer_step_bytes(of: Lasting, settings: Settings) -> int:
    """What the optimizer's step makes besides: at most for one tensor at a time.

    torch's fused AdamW and bitsandbytes on a GPU work in place. Adafactor writes one tensor's update, while its loop
    still has a name for that of the tensor before. bitsandbytes on a CPU unpacks both moments of a tensor and makes
    three more of its size.
    """
    if settings.optimizer == "adafactor":
        return (of.largest + of.second) * _FP32
    if settings.device == "cpu" and settings.optimizer != "adamw":
        return 5 * of.largest * _FP32 if "8bit" in settings.optimizer else 2 * of.largest * _FP32
    return 0
