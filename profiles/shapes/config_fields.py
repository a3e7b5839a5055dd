"""Typed reading of config.json's fields: every fault is a Problem that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profiles.problem import Problem, printable

SIZE_LIMIT = 1 << 28
COPY_CONFIG = "Copy config.json from the model's source again."

# Other names for the same number in other architectures; the first one that is there counts.
ALIASES: dict[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "seq_length"),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("num_experts_per_token", "moe_k", "moe_topk", "top_k_experts"),
    "hidden_act": ("hidden_activation", "activation_function"),
}


class Fields:
    """The fields of one config.json; `defaults` stand in for those it does not have."""

    def __init__(self, path: Path, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None):
        self.path = path
        self.values = values
        self._defaults = defaults or {}

    def get(self, field: str) -> Any:
        """The value of `field` under any of its names, else its default, else None."""
        return self._found(field)[1]

    def text(self, field: str, missing: str) -> str:
        value = self.get(field)
        if not isinstance(value, str) or not value.strip():
            raise Problem(str(self.path), missing, "Choose the folder of a language model.")
        return value

    def size(self, field: str, default: int | None = None, limit: int = SIZE_LIMIT) -> int:
        found = self.optional_size(field, limit)
        if found is not None:
            return found
        if default is None:
            raise Problem(f"{self.path}, field {field}", "is missing", COPY_CONFIG)
        return default

    def optional_size(self, field: str, limit: int = SIZE_LIMIT) -> int | None:
        """A whole number from 1 to `limit`; None when it is not there."""
        return self._number(field, 1, limit)

    def count(self, field: str, limit: int = SIZE_LIMIT) -> int:
        """A whole number from 0 to `limit`; 0 when it is not there."""
        return self._number(field, 0, limit) or 0

    def flag(self, field: str) -> bool | None:
        name, value = self._found(field)
        if value is None or isinstance(value, bool):
            return value
        raise Problem(f"{self.path}, field {name}", f"is {printable(repr(value))}", "Write true or false.")

    def _number(self, field: str, least: int, limit: int) -> int | None:
        name, value = self._found(field)
        if value is None:
            return None
        if type(value) is not int or not least <= value <= limit:
            raise Problem(
                f"{self.path}, field {name}",
                f"is {printable(repr(value))}; it should be a whole number from {least} to {limit:,}",
                COPY_CONFIG,
            )
        return value

    def _found(self, field: str) -> tuple[str, Any]:
        """(the name it goes by, its value). As in transformers, an explicit null keeps the default away."""
        names = [name for name in (field, *ALIASES.get(field, ())) if name in self.values]
        if not names:
            return field, self._defaults.get(field)
        name = next((name for name in names if self.values[name] is not None), names[0])
        return name, self.values[name]
