"""What a person asked for that this model cannot have: told when it is planned, not when it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiles.geometry import Geometry
from profiles.planning.quality import adapter_parameters
from profiles.problem import Problem, printable


def require_possible(asked: Mapping[str, Any], geometry: Geometry) -> None:
    """Raise Problem for the first of `asked` (by dotted RunSpec field) that no run of `geometry` can have."""
    context, length = geometry.context_length, asked.get("data.sequence_length", 0)
    if context and length > context:
        raise Problem(
            "data.sequence_length",
            f"is {length:,}, but the model's context is {context:,} tokens",
            f"Set it to {context} or less.",
        )
    layers, trained = geometry.layers, asked.get("method.trained_layers", 0)
    if trained > layers and asked.get("method.kind", "partial") == "partial":
        raise Problem(
            "method.trained_layers",
            f"is {trained:,}, but the model has {layers:,} decoder layers",
            f'Set it to {layers} or less, or train every weight with method.kind = "full".',
        )
    targets = asked.get("method.targets", "all-linear")
    if targets != "all-linear" and not adapter_parameters(geometry, 1, tuple(targets)):
        names = sorted({name.rpartition(".")[2] for name in geometry.linear_shapes})
        raise Problem(
            "method.targets",
            f"no layer is called {printable(', '.join(targets))}",
            f"This model's linear layers are {printable(', '.join(names), 300)}.",
        )
    if asked.get("train.offload_checkpoints") and asked.get("train.gradient_checkpointing") == 0:
        raise Problem(
            "train.offload_checkpoints",
            "is on, but nothing is kept for recomputing with train.gradient_checkpointing = 0",
            "Set train.gradient_checkpointing to 1, or train.offload_checkpoints to false.",
        )
