"""config.json of a decoder: the numbers that shape it, checked, with the defaults transformers would use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles.bounded_files import read_json
from profiles.problem import Problem, printable

CONFIG_LIMIT_BYTES = 4 << 20
_SIZE_LIMIT = 1 << 28

# Decoders of the blocks the memory formulas describe: separate q, k, v and o, a gated MLP, RMS norms.
FORMULA_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo2", "olmo3", "seed_oss"})

# Other names for the same number in older architectures.
_ALIASES = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "seq_length"),
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a decoder as its config.json states it."""

    path: Path
    model_type: str
    architecture: str
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool | None  # None: not said; the weights decide
    context_length: int | None
    experts: int

    @property
    def has_formula(self) -> bool:
        """Whether the memory formulas were derived for this kind of model."""
        return self.model_type in FORMULA_TYPES and not self.experts


def read_config(folder: Path) -> tuple[ModelConfig, list[Problem]]:
    """The folder's config and what forbids training this model (its own code, quantisation, ...).

    Raises Problem when the file cannot be read or does not describe a decoder.
    """
    path = folder / "config.json"
    values = read_json(path, CONFIG_LIMIT_BYTES)
    fields = _Fields(path, values)
    model_type = fields.text("model_type", "is not a model's config: it has no model_type")
    if values.get("is_encoder_decoder") is True:
        raise Problem(str(path), f"{printable(model_type)} is an encoder-decoder", "Choose a decoder (causal) model.")
    if isinstance(values.get("text_config"), dict):
        raise Problem(
            str(path),
            f"{printable(model_type)} reads more than text (it has a text_config of its own)",
            "Choose a text-only model.",
        )
    hidden_size, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    config = ModelConfig(
        path=path,
        model_type=model_type,
        architecture=_architecture(path, values, model_type),
        layers=fields.size("num_hidden_layers"),
        hidden_size=hidden_size,
        intermediate_size=fields.size("intermediate_size", default=4 * hidden_size),
        heads=heads,
        kv_heads=fields.size("num_key_value_heads", default=heads),
        head_dim=fields.size("head_dim", default=max(1, hidden_size // heads)),
        vocab_size=fields.size("vocab_size"),
        tied=fields.flag("tie_word_embeddings"),
        context_length=fields.optional_size("max_position_embeddings"),
        experts=fields.optional_size("num_local_experts") or fields.optional_size("num_experts") or 0,
    )
    if fields.optional_size("head_dim") is None and hidden_size % heads:
        raise Problem(
            f"{path}, field num_attention_heads",
            f"is {heads:,}, which does not divide hidden_size {hidden_size:,}",
            "Copy config.json from the model's source again.",
        )
    if heads % config.kv_heads:
        raise Problem(
            f"{path}, field num_key_value_heads",
            f"is {config.kv_heads:,}, which does not divide the {heads:,} attention heads",
            "Copy config.json from the model's source again.",
        )
    return config, _refusals(path, values)


def _architecture(path: Path, values: dict[str, Any], model_type: str) -> str:
    names = values.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        return model_type
    if not names[0].endswith(("ForCausalLM", "LMHeadModel")):
        raise Problem(
            f"{path}, field architectures",
            f"is {printable(names[0])}, which does not write text",
            "Choose a causal language model (its architecture ends in ForCausalLM).",
        )
    return names[0]


def _refusals(path: Path, values: dict[str, Any]) -> list[Problem]:
    problems = []
    if auto_map := values.get("auto_map"):
        problems.append(code_problem(path, auto_map))
    quantisation = values.get("quantization_config")
    if quantisation is not None:
        method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
        named = f" ({printable(method)})" if isinstance(method, str) else ""
        problems.append(
            Problem(
                f"{path}, field quantization_config",
                f"this model is already quantised{named}; its weights cannot be trained further",
                "Choose the unquantised model; qlora quantises it while loading.",
            )
        )
    for field in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
        value = values.get(field)
        if isinstance(value, str) and "/" in value:
            problems.append(
                Problem(
                    f"{path}, field {field}",
                    f"asks for the downloaded kernel {printable(value)}, and finetui never downloads",
                    f"Remove {field} from the file.",
                )
            )
    return problems


def code_problem(path: Path, auto_map: Any) -> Problem:
    """The refusal of a folder whose `auto_map` names Python code."""
    files: set[str] = set()
    pending = [auto_map]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, str):
            files.add(value.rpartition("--")[2].partition(".")[0] + ".py")
    named = ", ".join(printable(name) for name in sorted(files)[:3])
    count = "1 Python file" if len(files) == 1 else f"{len(files)} Python files"
    return Problem(
        f"{path}, field auto_map",
        f"this model wants to run {count} from its folder ({named}), and finetui never runs a model's code",
        "Choose a model that transformers has itself. If it has this one, remove auto_map from the file.",
    )


class _Fields:
    """Typed reading of config.json's fields. Every fault is a Problem naming the field."""

    def __init__(self, path: Path, values: dict[str, Any]):
        self._path, self._values = path, values

    def text(self, field: str, missing: str) -> str:
        value = self._values.get(field)
        if not isinstance(value, str) or not value.strip():
            raise Problem(str(self._path), missing, "Choose the folder of a language model.")
        return value

    def size(self, field: str, default: int | None = None) -> int:
        found = self.optional_size(field)
        if found is not None:
            return found
        if default is None:
            raise Problem(
                f"{self._path}, field {field}",
                "is missing",
                "Copy config.json from the model's source again.",
            )
        return default

    def optional_size(self, field: str) -> int | None:
        name = next((each for each in (field, *_ALIASES.get(field, ())) if self._values.get(each) is not None), None)
        if name is None:
            return None
        value = self._values[name]
        if type(value) is not int or not 1 <= value <= _SIZE_LIMIT:
            raise Problem(
                f"{self._path}, field {name}",
                f"is {printable(repr(value))}; it should be a whole number from 1 to {_SIZE_LIMIT:,}",
                "Copy config.json from the model's source again.",
            )
        return value

    def flag(self, field: str) -> bool | None:
        value = self._values.get(field)
        if value is None or isinstance(value, bool):
            return value
        raise Problem(f"{self._path}, field {field}", f"is {printable(repr(value))}", "Write true or false.")
