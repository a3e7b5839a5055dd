"""config.json of a decoder: the numbers that shape it, checked, with the defaults transformers would use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiles.bounded_files import read_json
from profiles.problem import Problem, printable
from profiles.shapes.config_defaults import WITHOUT_HEAD_DIM, defaults_of
from profiles.shapes.config_fields import COPY_CONFIG, Fields
from profiles.shapes.layer_kinds import FULL, WITHOUT_ATTENTION, layer_types, sliding_window
from profiles.shapes.refusals import refusals
from profiles.shapes.weight_storage import stored_dtype, stored_quantised

CONFIG_LIMIT_BYTES = 4 << 20
# The deepest decoder known has 126 layers (Llama 3.1 405B); a million would only fill this process's memory.
_LAYERS_LIMIT = 4096
_RECURRENT_TYPES = frozenset({"mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"})

# Decoders of the blocks the memory formulas describe: separate q, k, v and o, a gated MLP, RMS norms.
FORMULA_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo2", "olmo3", "seed_oss"})


@dataclass(frozen=True, slots=True)
class Latent:
    """Latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values are rebuilt from a narrow vector per token."""

    q_lora_rank: int
    """Width that queries are squeezed to; 0 when they are not."""
    kv_lora_rank: int
    qk_rope_head_dim: int
    qk_nope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a decoder as its config.json states it; of a model that also sees or hears, the text part's."""

    path: Path
    model_type: str
    architecture: str
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    """Width of a head's queries and keys."""
    vocab_size: int
    tied: bool | None  # None: not said; the weights decide
    context_length: int | None
    experts: int
    """Routed experts of a layer that has some; 0 for a model without."""
    experts_per_token: int = 0
    expert_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    """Width of what every token of a layer with experts passes besides its own: all shared experts side by side."""
    sliding_window: int | None = None
    """Tokens a layer of type "sliding_attention" looks back; None when no layer slides."""
    layer_types: tuple[str, ...] = ()
    """One per layer: "full_attention", "sliding_attention", or another of transformers' names ("mamba", ...)."""
    latent: Latent | None = None
    quantisation: str | None = None
    """How the stored weights were quantised ("bitsandbytes", "gptq", "awq", "fp8", ..., "unknown"); None: not."""
    quantisation_bits: int | None = None
    """Bits of a quantised weight, where the config tells."""
    vision: bool = False
    """Whether the text model is a part of one that also reads images or sound."""
    dtype: str = "F32"
    """What config.json says the weights are stored in, in safetensors' words; F32, transformers' default, if it does
    not say."""
    activation: str = "silu"
    """transformers' name of the MLP's activation function."""
    values: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """config.json's fields as they stand there; a text_config's laid over those around it."""

    def __post_init__(self) -> None:
        if not self.layer_types:
            object.__setattr__(self, "layer_types", (FULL,) * self.layers)

    @property
    def has_formula(self) -> bool:
        """Whether the memory formulas were derived for this kind of model."""
        return self.model_type in FORMULA_TYPES and not self.experts

    @property
    def attending_layers(self) -> int:
        """Layers that compare tokens with each other, whole or in a window; the others are recurrent or convolve."""
        return sum(kind not in WITHOUT_ATTENTION for kind in self.layer_types)

    @property
    def attention_kind(self) -> str:
        """How queries share keys and values: "latent", "multi-head", "multi-query", "grouped-query", or "none"."""
        if not self.attending_layers:
            return "none"
        if self.latent is not None:
            return "latent"
        if self.kv_heads == self.heads:
            return "multi-head"
        return "multi-query" if self.kv_heads == 1 else "grouped-query"


def read_config(folder: Path) -> tuple[ModelConfig, list[Problem]]:
    """The folder's config and what forbids training this model (its own code, quantisation, ...).

    Raises Problem when the file cannot be read or does not describe a decoder.
    """
    path = folder / "config.json"
    values = read_json(path, CONFIG_LIMIT_BYTES)
    config = parse_config(path, values)
    problems = refusals(path, values, config.quantisation)
    if config.vision:
        problems.append(
            Problem(
                str(path),
                f"{printable(values.get('model_type'))} reads more than text (it has a text_config of its own)",
                "Choose a text-only model.",
            )
        )
    return config, problems


def parse_config(path: Path, values: Mapping[str, Any], told: Mapping[str, Any] | None = None) -> ModelConfig:
    """What the fields `values` of the config.json at `path` say. Raises Problem naming the first faulty field.

    `told` are fields of the text model that transformers itself told; they win.
    """
    fields = Fields(path, values)
    model_type = fields.text("model_type", "is not a model's config: it has no model_type")
    if values.get("is_encoder_decoder") is True:
        raise Problem(str(path), f"{printable(model_type)} is an encoder-decoder", "Choose a decoder (causal) model.")
    text_config = values.get("text_config")
    vision = isinstance(text_config, dict)
    if isinstance(text_config, dict):
        values = {**values, **text_config}
        model_type = Fields(path, values).text("model_type", "its text_config has no model_type")
    values = {**values, **(told or {})}
    fields = Fields(path, values, defaults_of(model_type))
    if model_type in _RECURRENT_TYPES and told is None:
        raise Problem(
            f"{path}, field model_type",
            f"is {model_type}, a model without attention, which finetui does not train",
            "Choose a transformer.",
        )
    hidden_size, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    layers = fields.size("num_hidden_layers", limit=_LAYERS_LIMIT)
    intermediate_size = fields.size("intermediate_size", default=4 * hidden_size)
    experts = fields.count("num_experts")
    expert_size = fields.size("moe_intermediate_size", default=intermediate_size) if experts else 0
    method, bits = stored_quantised(values)
    latent = _latent(fields)
    config = ModelConfig(
        path=path,
        model_type=model_type,
        architecture=_architecture(path, values, model_type, vision),
        layers=layers,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        heads=heads,
        kv_heads=heads if latent else _kv_heads(fields, heads),
        head_dim=_head_dim(fields, model_type, latent, max(1, hidden_size // heads)),
        vocab_size=fields.size("vocab_size"),
        tied=Fields(path, values).flag("tie_word_embeddings"),
        context_length=fields.optional_size("max_position_embeddings"),
        experts=experts,
        experts_per_token=min(experts, fields.size("num_experts_per_tok", default=1)) if experts else 0,
        expert_intermediate_size=expert_size,
        shared_expert_intermediate_size=_shared_size(fields, expert_size) if experts else 0,
        sliding_window=sliding_window(fields, model_type),
        layer_types=layer_types(fields, model_type, layers),
        latent=latent,
        quantisation=method,
        quantisation_bits=bits,
        vision=vision,
        dtype=stored_dtype(values),
        activation=_activation(fields),
        values=values,
    )
    _check_heads(fields, config)
    return config


def require_buildable(path: Path, values: Mapping[str, Any]) -> None:
    """Raise Problem for a config that it would be a waste, or worse, to hand to transformers."""
    fields = Fields(path, values)
    fields.text("model_type", f"is not a model's config: its model_type is {printable(repr(values.get('model_type')))}")
    if isinstance(values.get("text_config"), dict):
        fields = Fields(path, {**values, **values["text_config"]})
    fields.optional_size("num_hidden_layers", limit=_LAYERS_LIMIT)


def _check_heads(fields: Fields, config: ModelConfig) -> None:
    told = fields.optional_size("head_dim") is not None and config.model_type not in WITHOUT_HEAD_DIM
    if not told and config.latent is None and config.hidden_size % config.heads:
        raise Problem(
            f"{config.path}, field num_attention_heads",
            f"is {config.heads:,}, which does not divide hidden_size {config.hidden_size:,}",
            COPY_CONFIG,
        )
    if config.heads % config.kv_heads:
        raise Problem(
            f"{config.path}, field num_key_value_heads",
            f"is {config.kv_heads:,}, which does not divide the {config.heads:,} attention heads",
            COPY_CONFIG,
        )


def _kv_heads(fields: Fields, heads: int) -> int:
    """Heads for keys and values. gpt_bigcode and falcon say "one" or "all" by a flag."""
    if fields.flag("new_decoder_architecture") is True:
        return fields.size("num_kv_heads", default=heads)
    if (multi_query := fields.flag("multi_query")) is not None:
        return 1 if multi_query else heads
    return fields.size("num_key_value_heads", default=heads)


def _head_dim(fields: Fields, model_type: str, latent: Latent | None, default: int) -> int:
    if latent is not None:
        return latent.qk_nope_head_dim + latent.qk_rope_head_dim
    return default if model_type in WITHOUT_HEAD_DIM else fields.size("head_dim", default=default)


def _shared_size(fields: Fields, expert_size: int) -> int:
    shared = fields.count("n_shared_experts")
    return shared * expert_size if shared else fields.count("shared_expert_intermediate_size")


def _latent(fields: Fields) -> Latent | None:
    kv_lora_rank = fields.optional_size("kv_lora_rank")
    if kv_lora_rank is None:
        return None
    return Latent(
        q_lora_rank=fields.count("q_lora_rank"),
        kv_lora_rank=kv_lora_rank,
        qk_rope_head_dim=fields.size("qk_rope_head_dim"),
        qk_nope_head_dim=fields.size("qk_nope_head_dim"),
        v_head_dim=fields.size("v_head_dim"),
    )


def _activation(fields: Fields) -> str:
    name = fields.get("hidden_act")
    return name if isinstance(name, str) else "silu"


def _architecture(path: Path, values: Mapping[str, Any], model_type: str, vision: bool) -> str:
    names = values.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        return model_type
    if not vision and not names[0].endswith(("ForCausalLM", "LMHeadModel")):
        raise Problem(
            f"{path}, field architectures",
            f"is {printable(names[0])}, which does not write text",
            "Choose a causal language model (its architecture ends in ForCausalLM).",
        )
    return names[0]
