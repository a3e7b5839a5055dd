"""What each decoder layer of a model looks like under given settings, told from the tensors' names and the config."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from profiles.footprint.decoder_layers import DecoderLayer, Experts
from profiles.footprint.tape_ops import Linear
from profiles.geometry import Geometry, Tensor
from profiles.settings import DTYPE_BYTES, Settings
from profiles.shapes.tensor_names import EXPERT, LAYER, ROUTER

KNOWN_TYPES = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3", "olmo2", "mixtral", "gpt2"}
    | {"smollm3", "seed_oss", "olmo3", "qwen3_moe"}
)
"""Families of the first line: real training steps were measured against the tape. Of the second: not measured, but made
of the same layers as those. All others are described by the same parts, roughly."""

# A linear layer's role by its module's name; the first that is there wins.
_ROLES: dict[str, tuple[str, ...]] = {
    "q": ("q_proj", "q_b_proj"),
    "k": ("k_proj", "kv_b_proj"),
    "v": ("v_proj",),
    "o": ("o_proj", "out_proj", "attn.c_proj", "self_attention.dense", "self_attn.dense", "attention.dense"),
    "qkv": ("qkv_proj", "c_attn", "query_key_value", "Wqkv"),
    "gate": ("gate_proj",),
    "up": ("up_proj", "c_fc", "fc1", "fc_in", "dense_h_to_4h"),
    "down": ("down_proj", "mlp.c_proj", "fc2", "fc_out", "dense_4h_to_h"),
    "gate_up": ("gate_up_proj",),
    "shared_gate": ("shared_expert_gate",),
}


@dataclass(frozen=True, slots=True)
class LayerTensors:
    """The tensors of one layer by their names within it ("self_attn.q_proj.weight")."""

    prefix: str
    tensors: Mapping[str, Tensor]

    @property
    def kind(self) -> frozenset[tuple[str, tuple[int, ...]]]:
        """Layers of one kind have the same tensors."""
        return frozenset((name, tensor.shape) for name, tensor in self.tensors.items())

    def module(self, names: tuple[str, ...]) -> str | None:
        """The module of one of these names that has a matrix, if any."""
        for name in self.tensors:
            if name.endswith(".weight") and not EXPERT.search("." + name):
                module = name.removesuffix(".weight")
                if any(module == each or module.endswith("." + each) for each in names):
                    return module
        return None

    def has(self, part: str) -> bool:
        return any(part in name for name in self.tensors)


def tensors_by_layer(geometry: Geometry) -> list[LayerTensors]:
    """The layers' tensors, in order; a layer without any is empty."""
    layers: list[dict[str, Tensor]] = [{} for _ in range(geometry.layers)]
    prefixes = [""] * geometry.layers
    for name, tensor in geometry.tensors.items():
        match = LAYER.search(name)
        if match and int(match[3]) < geometry.layers:
            layers[int(match[3])][name[match.end() :]] = tensor
            prefixes[int(match[3])] = name[: match.end()]
    return [LayerTensors(*each) for each in zip(prefixes, layers, strict=True)]


def describe_layer(
    geometry: Geometry,
    settings: Settings,
    tensors: LayerTensors,
    *,
    adapted: Collection[str],
    weights_learn: bool,
    pieces: bool,
    expands: bool,
) -> DecoderLayer:
    """The layer with `tensors`; `adapted` are the modules with LoRA matrices, by their full names; `weights_learn` for
    full tuning and the learning layers of partial tuning."""
    config = geometry.config
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    norm, placement = _norms(geometry, tensors)
    query_norm = next((t for name, t in tensors.tensors.items() if name.endswith("q_norm.weight")), None)
    experts = _experts(geometry, tensors, weights_learn)
    return DecoderLayer(
        hidden=config.hidden_size,
        queries=queries,
        keys=keys,
        heads=config.heads,
        kv_heads=config.kv_heads,
        norm=norm,
        placement=placement,
        head_norms="" if query_norm is None else "per head" if query_norm.elements == config.head_dim else "whole",
        rotary=config.model_type not in ("gpt2", "gpt_bigcode", "opt", "bloom", "mpt"),
        activation=_activation(config.activation if config.model_type != "gpt2" else "gelu_new"),
        linears=tuple(_linears(geometry, settings, tensors, adapted, weights_learn, experts)),
        experts=experts,
        residual_dropout=config.model_type == "gpt2" and bool(config.values.get("resid_pdrop", 0.1)),
        residual_scaled=config.model_type in ("granite", "granitemoe"),
        norms_learn=weights_learn,
        attention="eager" if settings.attention == "eager" else "fused",
        pieces=pieces,
        expands=expands and keys != queries,
        table_item=DTYPE_BYTES[settings.weight_dtype],
    )


def _norms(
    geometry: Geometry, tensors: LayerTensors
) -> tuple[Literal["rms", "rms fp32", "layer"], Literal["before", "after", "around"]]:
    if geometry.model_type.startswith(("gemma", "olmo2", "olmo3")):
        kind: Literal["rms", "rms fp32", "layer"] = "rms fp32"
    else:
        kind = "layer" if any(name.endswith(("norm.bias", "ln_1.bias")) for name in tensors.tensors) else "rms"
    if tensors.has("post_feedforward_layernorm") or tensors.has("post_mlp_layernorm"):
        return kind, "around" if tensors.has("input_layernorm") else "after"
    return kind, "before"


def _activation(name: str) -> Literal["silu", "gelu", "gelu_new"]:
    return "gelu_new" if name == "gelu_new" else "silu" if name in ("silu", "swish") else "gelu"


def _linears(
    geometry: Geometry,
    settings: Settings,
    tensors: LayerTensors,
    adapted: Collection[str],
    weights_learn: bool,
    experts: Experts | None,
) -> list[tuple[str, Linear]]:
    config = geometry.config
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    conv = config.model_type == "gpt2"
    # For roles that no tensor has (families not known): what a Llama of these sizes has.
    inner = config.intermediate_size
    if experts is not None:
        inner = experts.shared_inner
    sizes = {
        "q": (config.hidden_size, queries),
        "k": (config.hidden_size, keys),
        "v": (config.hidden_size, keys),
        "o": (queries, config.hidden_size),
        "qkv": (config.hidden_size, queries + 2 * keys),
        "gate": (config.hidden_size, inner),
        "up": (config.hidden_size, inner),
        "gate_up": (config.hidden_size, 2 * inner),
        "down": (inner, config.hidden_size),
        "shared_gate": (config.hidden_size, 1),
    }
    modules = {role: tensors.module(names) for role, names in _ROLES.items()}
    roles = ["qkv"] if modules["qkv"] else ["q", "k", "v"]
    roles.append("o")
    if experts is None or experts.shared_inner:
        roles += ["gate_up"] if modules["gate_up"] else ["gate", "up"] if modules["gate"] else ["up"]
        roles.append("down")
    if experts is not None and experts.shared_gate:
        roles.append("shared_gate")
    found = []
    for role in roles:
        module = modules[role]
        path = f"{tensors.prefix}{module}"
        quantised = settings.method == "qlora" and path in geometry.quantisable_shapes
        inputs, outputs = sizes[role]
        linear = Linear(
            inputs,
            outputs,
            "weight" if weights_learn else "adapter" if path in adapted else "nothing",
            bias=module is not None and f"{module}.bias" in tensors.tensors,
            quantised=quantised,
            fused=not conv or quantised,  # bitsandbytes' replacement of a Conv1D is a torch.nn.Linear
        )
        found.append((role, linear))
    if experts is not None:
        router = Linear(config.hidden_size, experts.count, "weight" if weights_learn else "nothing")
        found.append(("router", router))
    return found


def _experts(geometry: Geometry, tensors: LayerTensors, learn: bool) -> Experts | None:
    config = geometry.config
    if not config.experts or not any(
        EXPERT.search("." + name) or ROUTER.search("." + name) for name in tensors.tensors
    ):
        return None
    return Experts(
        count=config.experts,
        chosen=config.experts_per_token,
        inner=config.expert_intermediate_size,
        learn=learn,
        shared_inner=config.shared_expert_intermediate_size if tensors.has("shared_expert") else 0,
        shared_gate=tensors.has("shared_expert_gate"),
    )
