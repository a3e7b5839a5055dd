"""Families with a mixture of experts: a layer's routed experts are two tensors, as transformers 5 holds them."""

from __future__ import annotations

from profiles.problem import Problem, printable
from profiles.shapes.blocks import (
    Block,
    Mlp,
    Shapes,
    decoder,
    dense_mlp,
    linear,
    norm,
)
from profiles.shapes.config_fields import COPY_CONFIG, Fields
from profiles.shapes.model_config import ModelConfig


def mixtral(config: ModelConfig, fields: Fields) -> Shapes:
    return decoder(config, Block(), _in_every_layer(config, config.intermediate_size))


def olmoe(config: ModelConfig, fields: Fields) -> Shapes | None:
    if config.heads * config.head_dim != config.hidden_size:
        return None
    bias = fields.flag("attention_bias") is True
    block = Block(qkv_bias=bias, output_bias=bias, query_norms="width")
    return decoder(config, block, _in_every_layer(config, config.intermediate_size))


def granitemoe(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True

    def mlp(shapes: Shapes, prefix: str, layer: int) -> None:
        _experts(shapes, prefix.replace("mlp.", "block_sparse_moe."), config, config.intermediate_size, "router")

    return decoder(config, Block(qkv_bias=bias, output_bias=bias), mlp)


def qwen3_moe(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    block = Block(qkv_bias=bias, output_bias=bias, query_norms="head")
    dense = _dense_layers(config, fields)

    def mlp(shapes: Shapes, prefix: str, layer: int) -> None:
        if layer in dense:
            dense_mlp(shapes, prefix, config.hidden_size, config.intermediate_size, block)
        else:
            _experts(shapes, prefix, config, config.expert_intermediate_size)

    return decoder(config, block, mlp)


def qwen2_moe(config: ModelConfig, fields: Fields) -> Shapes:
    block = Block(qkv_bias=fields.flag("qkv_bias") is True)
    dense = _dense_layers(config, fields)

    def mlp(shapes: Shapes, prefix: str, layer: int) -> None:
        if layer in dense:
            dense_mlp(shapes, prefix, config.hidden_size, config.intermediate_size, block)
            return
        _experts(shapes, prefix, config, config.expert_intermediate_size)
        inner = config.shared_expert_intermediate_size
        dense_mlp(shapes, f"{prefix}shared_expert.", config.hidden_size, inner, block)
        linear(shapes, f"{prefix}shared_expert_gate", config.hidden_size, 1)

    return decoder(config, block, mlp)


def glm4_moe(config: ModelConfig, fields: Fields) -> Shapes:
    norms = "head" if fields.flag("use_qk_norm") is True else ""
    block = Block(qkv_bias=fields.flag("attention_bias") is True, query_norms=norms)  # type: ignore[arg-type]
    return decoder(config, block, _after_dense_ones(config, fields, block))


def deepseek(config: ModelConfig, fields: Fields) -> Shapes | None:
    """Latent attention, and experts from layer first_k_dense_replace on."""
    if config.latent is None:
        return None
    mlp_bias = config.model_type == "deepseek_v2" and fields.flag("mlp_bias") is True
    bias = fields.flag("attention_bias") is True
    block = Block(mlp_bias=mlp_bias)
    plain = decoder(config, block, _after_dense_ones(config, fields, block))
    shapes = {name: shape for name, shape in plain.items() if ".self_attn." not in name}
    for layer in range(config.layers):
        _latent_attention(shapes, f"model.layers.{layer}.self_attn.", config, bias)
    return shapes


def gpt_oss(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    experts, hidden, inner = config.experts, config.hidden_size, config.intermediate_size

    def mlp(shapes: Shapes, prefix: str, layer: int) -> None:
        shapes[prefix.replace("mlp.", "self_attn.sinks")] = (config.heads,)
        shapes[f"{prefix}router.weight"] = (experts, hidden)
        shapes[f"{prefix}router.bias"] = (experts,)
        shapes[f"{prefix}experts.gate_up_proj"] = (experts, hidden, 2 * inner)
        shapes[f"{prefix}experts.gate_up_proj_bias"] = (experts, 2 * inner)
        shapes[f"{prefix}experts.down_proj"] = (experts, inner, hidden)
        shapes[f"{prefix}experts.down_proj_bias"] = (experts, hidden)

    return decoder(config, Block(qkv_bias=bias, output_bias=bias), mlp)


def _in_every_layer(config: ModelConfig, inner: int) -> Mlp:
    def mlp(shapes: Shapes, prefix: str, layer: int) -> None:
        _experts(shapes, prefix, config, inner)

    return mlp


def _after_dense_ones(config: ModelConfig, fields: Fields, block: Block) -> Mlp:
    """The first layers dense, the others with routed and shared experts (DeepSeek's way)."""
    dense = fields.count("first_k_dense_replace")

    def mlp(shapes: Shapes, prefix: str, layer: int) -> None:
        if layer < dense:
            dense_mlp(shapes, prefix, config.hidden_size, config.intermediate_size, block)
            return
        _experts(shapes, prefix, config, config.expert_intermediate_size)
        inner = config.shared_expert_intermediate_size
        if inner:
            dense_mlp(shapes, f"{prefix}shared_experts.", config.hidden_size, inner, block)

    return mlp


def _dense_layers(config: ModelConfig, fields: Fields) -> frozenset[int]:
    """Layers without experts (Qwen's way): those named, and all but every decoder_sparse_step-th."""
    named = fields.get("mlp_only_layers") or []
    if not isinstance(named, list) or not all(type(each) is int for each in named):
        raise Problem(
            f"{config.path}, field mlp_only_layers",
            f"is {printable(repr(named))}; it should be a list of layer numbers",
            COPY_CONFIG,
        )
    step = fields.size("decoder_sparse_step", default=1)
    return frozenset(named) | {layer for layer in range(config.layers) if (layer + 1) % step}


def _experts(shapes: Shapes, prefix: str, config: ModelConfig, inner: int, router: str = "gate") -> None:
    """The router and all routed experts of a layer."""
    shapes[f"{prefix}{router}.weight"] = (config.experts, config.hidden_size)
    shapes[f"{prefix}experts.gate_up_proj"] = (config.experts, 2 * inner, config.hidden_size)
    shapes[f"{prefix}experts.down_proj"] = (config.experts, config.hidden_size, inner)


def _latent_attention(shapes: Shapes, prefix: str, config: ModelConfig, bias: bool) -> None:
    latent, hidden, heads = config.latent, config.hidden_size, config.heads
    assert latent is not None
    queries = heads * (latent.qk_nope_head_dim + latent.qk_rope_head_dim)
    if latent.q_lora_rank:
        linear(shapes, f"{prefix}q_a_proj", hidden, latent.q_lora_rank, bias)
        norm(shapes, f"{prefix}q_a_layernorm", latent.q_lora_rank)
        linear(shapes, f"{prefix}q_b_proj", latent.q_lora_rank, queries)
    else:
        linear(shapes, f"{prefix}q_proj", hidden, queries)
    linear(shapes, f"{prefix}kv_a_proj_with_mqa", hidden, latent.kv_lora_rank + latent.qk_rope_head_dim, bias)
    norm(shapes, f"{prefix}kv_a_layernorm", latent.kv_lora_rank)
    linear(shapes, f"{prefix}kv_b_proj", latent.kv_lora_rank, heads * (latent.qk_nope_head_dim + latent.v_head_dim))
    linear(shapes, f"{prefix}o_proj", heads * latent.v_head_dim, hidden, bias)
