"""Peak memory of a training run, from the model's geometry and the settings: one number per component.

The parts are counted, not fitted. A step is taken apart into phases (loading, forward, loss, the layers' backward,
optimizer step, evaluation, answers, saving); each phase's tensors are added up, and the peak is the largest phase.
profiles.footprint.step counts what autograd keeps and makes, op by op; profiles.footprint.lasting what stays from step
to step. What the process takes besides tensors (`context`, profiles.footprint.process) is measured.

What a geometry and settings but for lengths need is counted once; an estimate after that is some sums.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from profiles.footprint.lasting import lasting
from profiles.footprint.layer_shapes import KNOWN_TYPES
from profiles.footprint.process import Passing, context_bytes, error_share, host_bytes
from profiles.footprint.step import Counting, Moment, Step, count_step
from profiles.geometry import Geometry
from profiles.ladder import usual_answer_batch
from profiles.problem import printable
from profiles.settings import DTYPE_BYTES, Settings

COMPONENTS = ("weights", "adapters", "gradients", "optimizer", "activations", "loss", "context")
"""Every component, in the order they are shown in."""

TRAINING_PHASES = (
    "forward",
    "loss",
    "first backward",
    "backward",
    "last backward",
    "embedding's backward",
    "optimizer",
)
"""Phases of an optimizer step, in order; "evaluation" is that of held-out loss."""

_FP32 = 4


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The peak of one training process on its device. Sizes in bytes; `components` add up to `peak_bytes`."""

    components: Mapping[str, int]
    phase: str
    """Where the peak is: "loading", one of TRAINING_PHASES, "evaluation", "answers" or "saving"."""
    error_share: float
    """Share of the peak by which a measurement may differ."""
    reasons: tuple[str, ...]
    phases: Mapping[str, int] = field(default_factory=dict)
    """Bytes of tensors at the highest point of each phase, by the phase's name."""
    host_bytes: int = 0
    """RAM that a run on a GPU needs beside the GPU's memory; 0 on a CPU, where all of it is the peak."""

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
            "phases": dict(self.phases),
            "host_bytes": self.host_bytes,
            "error_share": self.error_share,
            "reasons": list(self.reasons),
        }


def estimate(geometry: Geometry, settings: Settings, capability: tuple[int, int] | None = None) -> MemoryEstimate:
    """Peak memory of training `geometry` under `settings` on the settings' device.

    Rows are taken to be full and of the costliest kind: a document that fills a row but for another short one.
    `capability` is the GPU's compute capability, where it is known.
    """
    counted = _counted(geometry)
    step = counted.step(settings, capability)
    last = step.lasting
    tokens, length = settings.tokens, settings.sequence_length
    constant = last.weights + last.adapters + last.optimizer
    mask = _mask_bytes(step, settings)
    loss = _loss_bytes(geometry, settings, step)

    packed, largest_packed = counted.unpacked_bytes(settings)
    phases: dict[str, int] = {"loading": last.weights + largest_packed}
    highest: dict[str, Moment] = {}
    for moment in step.moments:
        size = (
            constant
            + moment.gradients
            + moment.fixed
            + mask
            + tokens * (moment.per_token + length * moment.per_token_length)
        )
        if moment.loss:
            size += loss
        if size > phases.get(moment.phase, -1):
            phases[moment.phase] = size
            highest[moment.phase] = moment
    phases["evaluation"] = constant + mask + _evaluation_bytes(geometry, settings, step)
    if settings.answers:
        phases["answers"] = constant + mask + _answers_bytes(geometry, settings, step)
    phases["saving"] = constant

    phase = max(phases, key=phases.__getitem__)
    chosen = highest.get(phase)
    gradients = chosen.gradients if chosen else 0
    in_loss = loss if chosen and chosen.loss else 0
    lasts = phase != "loading"
    coming_and_going = phases[phase] - constant if lasts else 0
    passing = Passing(
        coming_and_going,
        step.recomputed_layers,
        tokens * geometry.hidden_size * DTYPE_BYTES[settings.weight_dtype],
        packed,
        largest_packed,
    )
    context = context_bytes(settings, capability, passing)
    components = {
        "weights": last.weights if lasts else phases[phase],
        "adapters": last.adapters if lasts else 0,
        "gradients": gradients,
        "optimizer": last.optimizer if lasts else 0,
        "activations": phases[phase] - constant - gradients - in_loss if lasts else 0,
        "loss": in_loss,
        "context": context,
    }
    known = geometry.model_type in KNOWN_TYPES
    return MemoryEstimate(
        components,
        phase,
        error_share(settings, known=known, tensors=phases[phase], context=context, coming_and_going=coming_and_going),
        _reasons(geometry, settings, phase, known, counted.converts(settings)),
        phases,
        host_bytes(geometry, settings, step),
    )


def trainable_parameters(geometry: Geometry, settings: Settings) -> int:
    """Numbers that learn."""
    return _counted(geometry).step(settings, None).lasting.trainable


def trainable_elements(geometry: Geometry, settings: Settings) -> list[int]:
    """Elements of each tensor that learns."""
    found = []
    for shape, count in lasting(geometry, settings).learning.items():
        size = 1
        for each in shape:
            size *= each
        found += [size] * count
    return found


def optimizer_bytes(geometry: Geometry, settings: Settings) -> int:
    """The optimizer's state. Paged ones count too: they leave the GPU only when it is full."""
    return lasting(geometry, settings).optimizer


class _Counted:
    """What was counted of one geometry, by settings without their lengths."""

    def __init__(self, geometry: Geometry):
        # Weak, or the geometry would live as long as what is known of it.
        self._geometry = weakref.ref(geometry)
        self._counting = Counting(geometry)
        self._steps: dict[tuple[object, ...], Step] = {}
        self._stored = geometry.dtype
        sizes = [math.prod(shape) for shape in geometry.quantisable_shapes.values()]
        self._quantised, self._largest_quantised = sum(sizes), max(sizes, default=0)

    def step(self, settings: Settings, capability: tuple[int, int] | None) -> Step:
        key = (
            settings.method,
            settings.device,
            settings.compute_dtype,
            settings.attention,
            settings.gradient_accumulation if settings.device == "cpu" else settings.gradient_accumulation > 1,
            settings.rank,
            settings.dropout > 0,
            settings.targets,
            settings.trained_layers,
            settings.double_quantisation,
            settings.optimizer,
            settings.gradient_checkpointing,
            settings.offload_checkpoints,
            settings.objective,
            capability,
        )
        found = self._steps.get(key)
        if found is None:
            geometry = self._geometry()
            assert geometry is not None
            found = self._steps[key] = count_step(geometry, settings, self._counting, capability)
        return found

    def unpacked_bytes(self, settings: Settings) -> tuple[int, int]:
        """The matrices of 4 bits in the compute dtype, as which each is there while it is made or used: all of them,
        and the largest."""
        if settings.method != "qlora":
            return 0, 0
        size = DTYPE_BYTES[settings.compute_dtype]
        return self._quantised * size, self._largest_quantised * size

    def converts(self, settings: Settings) -> bool:
        """Whether the weights are made from the file's rather than being its mapped pages."""
        same = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}[settings.weight_dtype] == self._stored
        return not same or settings.method == "qlora"


def _counted(geometry: Geometry) -> _Counted:
    """Kept on the geometry itself, whose fields never change."""
    known: _Counted | None = vars(geometry).get("_memory")
    if known is None:
        known = vars(geometry)["_memory"] = _Counted(geometry)
    return known


def _mask_bytes(step: Step, settings: Settings) -> int:
    """The sliding window's mask over a row's longest document, one for all layers (engine.train.document_attention)."""
    if not step.window or settings.sequence_length - 2 <= step.window:
        return 0
    return (settings.sequence_length - 2) ** 2 * DTYPE_BYTES[settings.compute_dtype]


def _loss_bytes(geometry: Geometry, settings: Settings, step: Step) -> int:
    """The chunked cross-entropy at its widest, with every token a target (engine.objectives.cross_entropy).

    States that predict and their gradient; and then, for a chunk, either its softmax (logits, their fp32 copy below
    fp32, the log-softmax) or its backward (logits, slope, the slope in the compute dtype, the states' gradient), with,
    where the head learns, its gradients: this chunk's and the sum so far. Under autocast the head and the chunk's
    states are cast.
    """
    vocab, hidden = geometry.vocab_size, geometry.hidden_size
    targets = settings.tokens
    if not settings.writes:
        return _states_bytes(geometry, settings, step)
    rows = min(targets, settings.loss_chunk)
    compute, state, head = DTYPE_BYTES[settings.compute_dtype], step.state_bytes, step.head_gradient
    both = 2 * targets * hidden * state
    chunks = targets > settings.loss_chunk
    # Kept for the head's gradient.
    cast_rows = rows * hidden * compute if head and settings.autocast and state != compute else 0
    cast_head = head // _FP32 * compute if head and settings.autocast else 0
    logits = rows * vocab * compute
    upcast = rows * vocab * _FP32 if settings.autocast else 0
    summed = head if chunks else 0
    softmax = cast_head + cast_rows + logits + upcast + rows * vocab * _FP32 + summed
    backward = logits + rows * vocab * _FP32 + (logits if settings.autocast else 0) + summed
    if not settings.autocast:
        backward += head + rows * hidden * compute
    elif not head:
        backward += rows * hidden * (compute + (state if state != compute else 0))
    else:
        # The product's gradients beside the copies it was made of, or, once these are gone, the head's in fp32.
        product = 2 * cast_head + cast_rows + rows * hidden * compute
        backward += max(product, cast_head + head + rows * hidden * state)
    return both + max(softmax, backward)


def _states_bytes(geometry: Geometry, settings: Settings, step: Step) -> int:
    """What stands for the loss where no tokens are predicted: the last states that a head or a vector is made of.

    Of a class, the gradient of all states, of which one a text is not zero. Of a vector that is a mean
    (engine.objectives.embedding), the states, picked and in fp32, and the gradients of the three.
    """
    state = step.state_bytes
    per_number = state if settings.objective == "classification" else 2 * state + (_FP32 if state != _FP32 else 0)
    return settings.tokens * geometry.hidden_size * per_number


def _evaluation_bytes(geometry: Geometry, settings: Settings, step: Step) -> int:
    """Held-out loss: a forward of as many tokens as a micro-batch that keeps nothing, then the loss by chunks."""
    tokens, length, hidden = settings.tokens, settings.sequence_length, geometry.hidden_size
    forward = max(fixed + tokens * (each + length * square) for fixed, each, square in step.passing)
    if not settings.writes:
        return max(forward, _states_bytes(geometry, settings, step))
    rows = min(tokens, settings.loss_chunk)
    compute = DTYPE_BYTES[settings.compute_dtype]
    logits = rows * geometry.vocab_size * max(compute + _FP32 if settings.autocast else 0, 2 * _FP32)
    return max(forward, tokens * hidden * step.state_bytes + logits)


def _answers_bytes(geometry: Geometry, settings: Settings, step: Step) -> int:
    """Greedy answers of a batch of rows over a key-value cache (engine.evaluate.answers).

    Highest where the last layer reads the prompts: their cache, its forward, the mask; or where the answers end: the
    cache of all tokens, of which a layer's is copied as it grows.
    """
    config = geometry.config
    new = settings.max_new_tokens
    width = max(1, settings.sequence_length - new)
    rows = min(settings.answers, usual_answer_batch(settings.tokens, width + new))
    # Keys have been rotated in the dtype of the states; values come as the product leaves them.
    held = DTYPE_BYTES[settings.weight_dtype] + DTYPE_BYTES[settings.compute_dtype]
    per_layer = config.kv_heads * config.head_dim * held
    tokens = rows * (width + new)
    forward = max(fixed + rows * width * each for fixed, each, _ in step.passing)
    logits = rows * geometry.vocab_size * (DTYPE_BYTES[settings.compute_dtype] + _FP32)
    mask = rows * width * width * (1 + DTYPE_BYTES[settings.compute_dtype])
    reading = rows * width * per_layer * config.layers + forward + mask
    return max(reading, tokens * per_layer * (config.layers + 1) + logits)


def _reasons(geometry: Geometry, settings: Settings, phase: str, known: bool, converts: bool) -> tuple[str, ...]:
    """What a reader of the numbers should know, in sentences."""
    reasons = [f"The peak is in the phase: {phase}."]
    if settings.device == "cpu":
        reasons.append("Counted is the RAM of the training process; what else the machine runs comes on top.")
        if converts:
            reasons.append("Not counted is the model's file, pages of which the system takes back when it needs them.")
    else:
        reasons.append("Counted is the GPU's memory, with the CUDA context and the allocator's slack.")
    if settings.method == "full":
        reasons.append("Full tuning keeps weights and gradients in fp32, and AdamW two moments: 16 bytes a parameter.")
    if settings.method == "partial":
        reasons.append("Layers before the first that learns keep no activations.")
    if settings.autocast and settings.method == "full":
        until = "its layer has used it" if settings.gradient_checkpointing == 1 else "its layer's backward"
        reasons.append(f"Autocast keeps a {settings.compute_dtype} copy of every matrix until {until}.")
    if settings.optimizer.startswith("paged"):
        reasons.append("A paged optimizer's states are counted; they can move to RAM when the GPU is full.")
    if settings.gradient_checkpointing:
        reasons.append("Layers that recompute keep only their input.")
        if settings.offload_checkpoints and settings.device == "cuda":
            reasons.append("Those inputs wait in RAM.")
    if not known:
        reasons.append(f"The formulas were not made for models of type {printable(geometry.model_type)}.")
    return tuple(reasons)
