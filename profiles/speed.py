"""How fast a training step runs: a roofline over its products, its memory traffic and its operations' starts.

Counted from the same step as profiles.memory: a forward (2 FLOPs per weight and token), a backward by activations (2)
and by weights (2, only where they learn), the forward again where layers recompute, attention over what each token
looks at, LoRA's own products; the bytes of everything element-wise, of reading weights, unpacking 4-bit ones and the
optimizer; the time that starting some hundred kernels per layer takes. On a GPU starting overlaps with computing, on a
CPU it does not. The counts give tokens/s only with the device's rates (profiles.device_rates).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from profiles.device_rates import Correction, Rates, rates_of
from profiles.geometry import Geometry
from profiles.settings import DTYPE_BYTES, Objective, Settings
from profiles.step_shape import StepShape, adapted_widths, step_shape

__all__ = ["Correction", "Rates", "SpeedEstimate", "estimate_speed", "geometry_key", "rates_of"]

Bound = Literal["compute", "memory", "overhead"]
"""What most of a step's time goes to: products, moving bytes, or starting operations."""

# Share of the rate of large products that fused attention reaches, forward and backward together (FlashAttention-2 on
# an A100: 50 to 73 % of the peak, arXiv 2307.08691, where products reach 85 %).
_ATTENTION_SHARE = 0.65
# The backward of fused attention is five products for the forward's two.
_ATTENTION_BACKWARD = 2.5
# Experts multiply few tokens each.
_EXPERT_SHARE = 0.6
# Eager attention's passes over its square of scores: scaled, masked, softmax to fp32 and back, read by the product.
_EAGER_MOVES = 8
# Numbers moved per logit of the chunked loss and bytes of each: log-softmax, exponential and slope in fp32, the
# logits themselves written, read and differentiated in the compute dtype.
_LOSS_FP32_MOVES = 8
_LOSS_COMPUTE_MOVES = 3
# Clipping reads the gradients for their norm, and reads and writes them to scale them.
_CLIP_BYTES = 12
# Bytes of weight, gradient and state that a step of each optimizer moves per parameter that learns.
_OPTIMIZER_BYTES = {"adamw": 28, "adamw_8bit": 16, "paged_adamw": 28, "paged_adamw_8bit": 16, "adafactor": 40}
# Kernels started per tensor that learns: one fused call takes many; bitsandbytes goes tensor by tensor.
_OPTIMIZER_OPERATIONS = {"adamw": 0.2, "adamw_8bit": 12, "paged_adamw": 12, "paged_adamw_8bit": 12, "adafactor": 6}
# A LoRA layer starts six kernels more than the layer alone: two products, scaling, casts of its matrices, the sum.
_LORA_OPERATIONS = 6
_LOSS_OPERATIONS = 24
# The backward starts somewhat more kernels than the forward: two products for one, and sums of gradients.
_BACKWARD_OPERATIONS = 1.5
# Forwards of all rows by the untouched base before the first step; KTO's rows have a second answer each.
_FORWARDS_OF_BASE: dict[Objective, int] = {"dpo": 1, "kto": 2}
# On a GPU every kernel leaves a gap behind it, however early it was started.
_GAP_SHARE = 0.12


@dataclass(frozen=True, slots=True)
class SpeedEstimate:
    """Tokens/s of training, padding not counted, and what bounds it. `seconds_per_step` is one optimizer step."""

    tokens_per_second: float
    seconds_per_step: float
    bound: Bound
    reason: str
    error_share: float
    """Share by which the measured tokens/s may differ."""
    referring_share: float = 0.0
    """Time in which the untouched base goes over all rows first, as a share of an epoch's; 0 where it need not."""

    def as_dict(self) -> dict[str, float | str]:
        return {
            "tokens_per_second": self.tokens_per_second,
            "seconds_per_step": self.seconds_per_step,
            "bound": self.bound,
            "reason": self.reason,
            "error_share": self.error_share,
        }


def geometry_key(geometry: Geometry) -> str:
    """A short name for the shape, under which runs' speeds are kept: models of one shape take the same time."""
    return step_shape(geometry).key


def estimate_speed(geometry: Geometry, settings: Settings, rates: Rates, target_share: float = 1.0) -> SpeedEstimate:
    """The speed of training `geometry` under `settings` on a device of these `rates`.

    `target_share` is the share of tokens that carry loss; only those go through the output head. Rows are taken as full
    (packed) and as one document each, which is the most that attention can cost.
    """
    shape = step_shape(geometry)
    passes = _passes(shape, settings)
    lora = adapted_widths(geometry, shape, settings.targets) if settings.method in ("lora", "qlora") else (0, 0, 0)
    targets = settings.tokens * target_share
    micro_batches = settings.gradient_accumulation

    flops, attention_flops = _flops(shape, settings, passes, lora, targets)
    rate = rates.matmul_flops.get(settings.compute_dtype) or rates.matmul_flops["fp32"]
    # A CPU's attention kernel multiplies bf16 as fp32, however fast its bf16 products are.
    attention_rate = _ATTENTION_SHARE * (rates.matmul_flops["fp32"] if rates.kind == "cpu" else rate)
    narrowing = shape.hidden / (shape.hidden + rates.half_width)
    if shape.sparse:
        rate *= _EXPERT_SHARE
    products = micro_batches * (flops / rate + attention_flops / attention_rate) / narrowing

    learning = _learning(shape, settings, passes, lora)
    moved_bytes = micro_batches * _moved_bytes(shape, settings, passes, lora, targets, learning)
    moved_bytes += learning * (_OPTIMIZER_BYTES[settings.optimizer] + _CLIP_BYTES)
    moved = moved_bytes / rates.bandwidth_bytes_per_second
    moved += micro_batches * _unpacking_seconds(shape, settings, passes, rates)
    if settings.offload_checkpoints and rates.kind == "cuda":
        kept_bytes = settings.tokens * shape.hidden * DTYPE_BYTES[settings.weight_dtype]
        moved += micro_batches * 2 * passes.recomputed * kept_bytes / rates.transfer_bytes_per_second

    learning_tensors = shape.tensors * passes.learning / shape.layers + 2 * lora[0]
    operations = micro_batches * _operations(shape, settings, passes, lora, targets)
    operations += learning_tensors * _OPTIMIZER_OPERATIONS[settings.optimizer]
    started = operations * rates.operation_seconds
    if rates.kind == "cuda":
        # The device runs behind Python: a step takes what the slower of the two needs.
        busy = products + moved + started * _GAP_SHARE
        seconds = max(busy, started)
        overhead = seconds - products - moved
    else:
        seconds, overhead = products + moved + started, started
    correction, error_share = _correction(shape, settings, rates)
    seconds /= correction
    bound, reason = _reason(products, moved, overhead, rates, settings)
    ways = shape.layers + passes.unlearnt + passes.recomputed + passes.backward + passes.learning
    referring = _FORWARDS_OF_BASE.get(settings.objective, 0) * shape.layers / ways
    return SpeedEstimate(
        tokens_per_second=settings.tokens * micro_batches / seconds,
        seconds_per_step=seconds,
        bound=bound,
        reason=reason,
        error_share=error_share,
        referring_share=referring,
    )


@dataclass(frozen=True, slots=True)
class _Passes:
    """How many layers each way through the model takes; the forward takes all."""

    unlearnt: int
    """Layers of a forward beside that of the step, without a backward."""

    backward: int
    learning: int
    """Layers whose own matrices learn."""
    recomputed: int


def _passes(shape: StepShape, settings: Settings) -> _Passes:
    backward = min(settings.trained_layers, shape.layers) if settings.method == "partial" else shape.layers
    every = settings.gradient_checkpointing
    # KTO's answers of other rows; vectors of the whole step, before each micro-batch learns.
    beside = settings.objective == "kto" or (settings.objective == "embedding" and settings.gradient_accumulation > 1)
    return _Passes(
        unlearnt=shape.layers if beside else 0,
        backward=backward,
        learning=backward if settings.method in ("full", "partial") else 0,
        recomputed=math.ceil(backward / every) if every else 0,
    )


def _learning(shape: StepShape, settings: Settings, passes: _Passes, lora: tuple[int, int, int]) -> float:
    """Parameters that learn."""
    if settings.method == "full":
        return shape.parameters
    if settings.method == "partial":
        return shape.stored_elements * passes.learning / shape.layers
    return settings.rank * (lora[1] + lora[2])


def _flops(
    shape: StepShape, settings: Settings, passes: _Passes, lora: tuple[int, int, int], targets: float
) -> tuple[float, float]:
    """(of matrix products, of attention) in one micro-batch."""
    tokens, layers = settings.tokens, shape.layers
    ways = layers + passes.unlearnt + passes.backward + passes.learning + passes.recomputed
    linear = 2 * tokens * shape.matrix_elements / layers * ways
    adapters = 2 * tokens * settings.rank * (lora[1] + lora[2]) * (3 + (passes.recomputed + passes.unlearnt) / layers)
    head = 2 * targets * shape.head_elements * _head_passes(settings)
    seen = _tokens_seen(shape, settings)
    attention = 2 * tokens * shape.attention_width * seen / layers
    attention *= layers + passes.unlearnt + _ATTENTION_BACKWARD * passes.backward + passes.recomputed
    return linear + adapters + head, attention


def _head_passes(settings: Settings) -> int:
    """Products with the output head: forward, backward by states and, where it learns, by its weights. Whole answers'
    log-probabilities then take its forward again; KTO's other answers another."""
    if not settings.writes:
        return 0
    learns = settings.method == "full"
    again = learns and settings.objective != "next_token"
    return 2 + learns + again + (settings.objective == "kto")


def _tokens_seen(shape: StepShape, settings: Settings) -> float:
    """Tokens that a token looks at on average, summed over the layers."""
    length, window = settings.sequence_length, shape.window
    if settings.attention == "eager":  # computes the whole square and masks it
        return length * (shape.full_layers + shape.window_layers)
    seen_in_window = window - window * window / (2 * length) if window < length else length / 2
    return shape.full_layers * length / 2 + shape.window_layers * seen_in_window


def _moved_bytes(
    shape: StepShape,
    settings: Settings,
    passes: _Passes,
    lora: tuple[int, int, int],
    targets: float,
    learning: float,
) -> float:
    """What one micro-batch reads and writes besides the operands of large products."""
    tokens, layers = settings.tokens, shape.layers
    width = DTYPE_BYTES[settings.compute_dtype]
    ways = layers + passes.unlearnt + passes.recomputed + 2 * passes.backward
    moved: float = tokens * shape.moved_numbers * width * ways
    # An adapter's products are so narrow that what counts is reading their wide side and adding to it: forward the
    # inputs and twice the outputs, backward both again and the sum of the inputs' gradients.
    forward = (1 + 3 * bool(settings.dropout)) * lora[1] + 2 * lora[2]
    moved += tokens * width * (forward * (1 + passes.recomputed / layers) + 4 * lora[1] + 2 * lora[2])
    # Each way reads all weights once; few tokens do not hide that.
    moved += shape.stored_elements / layers * width * ways
    if settings.writes:
        moved += targets * shape.head_elements / shape.hidden * (_LOSS_FP32_MOVES * 4 + _LOSS_COMPUTE_MOVES * width)
    if settings.method in ("full", "partial"):
        # Gradients are written, and added to those of the micro-batches before; autocast casts the weights to the
        # compute dtype and the gradients back.
        adding = 3 * 4 * (1 - 1 / settings.gradient_accumulation)
        moved += learning * (4 + adding + (2 * (4 + width) if settings.autocast else 0))
    if settings.method == "full" and settings.writes:
        moved += math.ceil(targets / settings.loss_chunk) * shape.head_elements * 3 * 4
    if settings.attention == "eager":
        square = tokens * settings.sequence_length * shape.heads * 4
        moved += _EAGER_MOVES * square * ways
    return moved


def _unpacking_seconds(shape: StepShape, settings: Settings, passes: _Passes, rates: Rates) -> float:
    """qlora unpacks every matrix for every way through its layer."""
    if settings.method != "qlora":
        return 0.0
    ways = shape.layers + passes.unlearnt + passes.backward + passes.recomputed
    return shape.quantised_elements / shape.layers * ways / rates.unpacked_per_second


def _operations(
    shape: StepShape, settings: Settings, passes: _Passes, lora: tuple[int, int, int], targets: float
) -> float:
    """Kernels that one micro-batch starts."""
    in_layer = shape.layer_operations + _LORA_OPERATIONS * lora[0] / shape.layers
    if settings.method == "qlora":
        in_layer += shape.matrices / shape.layers
    ways = shape.layers + passes.unlearnt + passes.recomputed + _BACKWARD_OPERATIONS * passes.backward
    chunks = math.ceil(targets / settings.loss_chunk) if settings.writes else 1
    return in_layer * ways + _LOSS_OPERATIONS * chunks


def _correction(shape: StepShape, settings: Settings, rates: Rates) -> tuple[float, float]:
    """(factor on the predicted speed, error share): from runs of this model, else of this method, else none."""
    if rates.corrections:
        learnt = rates.corrections.get(f"{settings.method} {shape.key}") or rates.corrections.get(settings.method)
        if learnt is not None:
            return learnt.factor, learnt.error_share
    return rates.correction, rates.error_share


def _reason(products: float, moved: float, overhead: float, rates: Rates, settings: Settings) -> tuple[Bound, str]:
    total = products + moved + overhead
    if products >= moved and products >= overhead:
        bound: Bound = "compute"
        what = f"{100 * products / total:.0f} % of the time is matrix products in {settings.compute_dtype}"
    elif moved >= overhead:
        bound, what = "memory", f"{100 * moved / total:.0f} % of the time is reading and writing memory"
    else:
        bound, what = "overhead", f"{100 * overhead / total:.0f} % of the time is starting small operations"
    return bound, f"{'this CPU' if rates.kind == 'cpu' else bound + '-bound'}: {what}"
