"""RunSpec's fields, by dotted name, as the Settings that memory and speed are computed from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiles.geometry import Geometry
from profiles.hardware import Hardware
from profiles.settings import Attention, Dtype, Settings

SETTING_OF_FIELD = {
    "method.kind": "method",
    "method.rank": "rank",
    "method.dropout": "dropout",
    "method.targets": "targets",
    "method.trained_layers": "trained_layers",
    "method.double_quantisation": "double_quantisation",
    "optimizer.kind": "optimizer",
    "data.sequence_length": "sequence_length",
    "train.micro_batch": "micro_batch",
    "train.gradient_accumulation": "gradient_accumulation",
    "train.gradient_checkpointing": "gradient_checkpointing",
    "train.offload_checkpoints": "offload_checkpoints",
    "train.loss_chunk": "loss_chunk",
    "objective.kind": "objective",
    "evaluation.answers": "answers",
    "evaluation.max_new_tokens": "max_new_tokens",
}
"""Fields that memory depends on, and the name each has in Settings."""

# Above this the flash kernels have no variant (torch 2.11 to 2.13).
_FLASH_HEAD_LIMIT = 256


def settings_from(values: Mapping[str, Any], geometry: Geometry, hardware: Hardware) -> Settings:
    """What the formulas need of `values` on `hardware`'s first device, every "auto" resolved as the worker does it.

    Fields that are not in `values` have Settings' defaults.
    """
    known: dict[str, Any] = {name: values[field] for field, name in SETTING_OF_FIELD.items() if field in values}
    if isinstance(known.get("targets"), list):
        known["targets"] = tuple(known["targets"])
    if not values.get("data.held_out") and not values.get("data.held_out_share", True):
        known["answers"] = 0  # nothing is held out, so nothing is answered
    if known.get("objective") in ("classification", "embedding"):
        known["answers"] = 0  # they answer nothing in words
    dtype = compute_dtype(values.get("model.dtype", "auto"), hardware)
    return Settings(
        device="cuda" if hardware.gpus else "cpu",
        compute_dtype=dtype,
        attention=attention(values.get("model.attention", "auto"), dtype, geometry, hardware),
        **known,
    )


def compute_dtype(asked: str, hardware: Hardware) -> Dtype:
    """bf16 where the GPU computes it natively, else fp16; fp32 on a CPU."""
    if asked != "auto":
        return asked  # type: ignore[return-value]
    if not hardware.gpus:
        return "fp32"
    return "bf16" if hardware.gpus[0].native_bf16 else "fp16"


def attention(asked: str, dtype: Dtype, geometry: Geometry, hardware: Hardware) -> Attention:
    """varlen flash attention where the GPU has it: no other takes less memory or time, so none is searched."""
    if asked != "auto":
        return asked  # type: ignore[return-value]
    native = bool(hardware.gpus) and hardware.gpus[0].native_bf16
    return "varlen" if native and dtype != "fp32" and geometry.head_dim <= _FLASH_HEAD_LIMIT else "sdpa"


def nested(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Dotted fields as sections, as in TOML."""
    sections: dict[str, dict[str, Any]] = {}
    for field, value in values.items():
        section, key = field.split(".")
        sections.setdefault(section, {})[key] = value
    return sections


def dotted(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Sections as dotted fields; what is no section is left out."""
    return {
        f"{section}.{key}": value
        for section, table in sections.items()
        if isinstance(table, Mapping)
        for key, value in table.items()
    }
