"""A profile's value and reason for every field of a run's spec: the frame's, the point's, and what follows."""

from __future__ import annotations

from typing import Any

from profiles.planning import hyperparameters as usual
from profiles.planning.frame import METHODS, Frame
from profiles.planning.settings_of_spec import SETTING_OF_FIELD
from profiles.planning.words import recompute_text
from profiles.settings import Method, Settings

_ONLY_FOR: dict[str, tuple[Method, ...]] = {
    "method.rank": ("lora", "qlora"),
    "method.alpha": ("lora", "qlora"),
    "method.targets": ("lora", "qlora"),
    "method.double_quantisation": ("qlora",),
    "method.trained_layers": ("partial",),
}
"""Fields that only some methods read."""

_METHOD_REASONS = {
    "lora": "the base fits the memory as it is",
    "qlora": "the base in 4 bits leaves the room that is wanted",
    "partial": "the last layers learn, and nothing before them keeps activations",
    "full": "every weight learns",
}
_OPTIMIZER_REASONS = {
    "adamw": "exact states fit",
    "adamw_8bit": "8-bit states match exact ones and take a fourth",
    "paged_adamw": "states that may move to RAM",
    "paged_adamw_8bit": "8-bit states that may move to RAM",
    "adafactor": "factored states take next to nothing",
}


def values_and_reasons(frame: Frame, settings: Settings, fits: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """By dotted field. Fields that the settings' method does not read have a value, but no reason."""
    decided = frame.decisions.copy()
    for name, why in _point_reasons(settings, frame).items():
        value = getattr(settings, SETTING_OF_FIELD[name])
        decided.decide(name, usual.Choice(value, why if fits else "the least memory; even this does not fit"))
    rate = usual.learning_rate(settings.method, frame.geometry.hidden_size, settings.objective)
    decided.decide("optimizer.learning_rate", rate)
    rows = settings.micro_batch * settings.gradient_accumulation
    steps = frame.steps(settings.sequence_length, rows)
    decided.decide("schedule.kind", usual.Choice("cosine", "falls smoothly to nothing"))
    decided.decide("schedule.warmup_share", usual.warmup_share(steps))
    decided.decide("evaluation.every_steps", usual.evaluation_every(steps))
    decided.decide("checkpoint.every_steps", usual.checkpoint_every(steps))
    for name, value in frame.asked.items():
        decided.decide(name, usual.Choice(value, "as you set it"))
    reasons = {name: why for name, why in decided.reasons.items() if _matters(name, settings, frame)}
    return decided.values, reasons


def _matters(name: str, settings: Settings, frame: Frame) -> bool:
    """Whether a field means anything to this method, or was asked for."""
    return name in frame.asked or settings.method in _ONLY_FOR.get(name, METHODS)


def _point_reasons(settings: Settings, frame: Frame) -> dict[str, str]:
    """Why the search's own fields are what they are."""
    rows = settings.micro_batch * settings.gradient_accumulation
    reasons = {
        "method.kind": _METHOD_REASONS[settings.method],
        "optimizer.kind": _OPTIMIZER_REASONS[settings.optimizer],
        "train.micro_batch": f"{settings.tokens:,} tokens at once",
        "train.gradient_accumulation": f"{rows} rows a step",
        "train.gradient_checkpointing": (
            f"{recompute_text(settings)}: the least that fits at this speed"
            if settings.gradient_checkpointing
            else "nothing has to be recomputed to fit"
        ),
        "train.offload_checkpoints": (
            "what layers recompute from waits in RAM" if settings.offload_checkpoints else "not needed to fit"
        ),
    }
    usual_values = {
        "method.rank": "a smaller adapter, which takes less",
        "method.targets": "every linear layer, which learns more than attention alone"
        if settings.targets == "all-linear"
        else "attention alone, which takes less",
        "method.trained_layers": "the last layers, as many as are worth their memory",
        "method.double_quantisation": "the scales quantised too" if settings.double_quantisation else "plain scales",
        "train.loss_chunk": "fewer logits at once, which takes less",
        "data.sequence_length": "the longest rows that fit",
    }
    for name, why in usual_values.items():
        if frame.values.get(name) != getattr(settings, SETTING_OF_FIELD[name]):
            reasons[name] = why
    return reasons
