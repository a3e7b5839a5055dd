"""A decoder of equal layers, its parts chosen by a Block: what most families are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from profiles.shapes.config_defaults import defaults_of
from profiles.shapes.model_config import ModelConfig

Shapes = dict[str, tuple[int, ...]]
Mlp = Callable[[Shapes, str, int], None]
"""Adds layer number N's MLP under a prefix."""


@dataclass(frozen=True, slots=True)
class Block:
    """One decoder layer and what stands around the layers, by transformers' names."""

    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    norm_bias: bool = False
    query_norms: Literal["", "head", "width"] = ""
    """Norms of queries and keys: none, over each head, or over all heads' width."""
    fused_qkv: bool = False
    qkv_bias: bool = False
    output: str = "o_proj"
    output_bias: bool = False
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    """In order; the last one leads back. "gate_up_proj" is both in one matrix."""
    mlp_bias: bool = False
    final_norm: str = "norm"
    head_bias: bool = False


def decoder(config: ModelConfig, block: Block, mlp: Mlp | None = None) -> Shapes:
    """All parameters of such a model; `mlp` takes the place of the block's own MLP in every layer."""
    shapes: Shapes = {"model.embed_tokens.weight": (config.vocab_size, config.hidden_size)}
    for layer in range(config.layers):
        prefix = f"model.layers.{layer}."
        attention(shapes, f"{prefix}self_attn.", config, block)
        if mlp is None:
            dense_mlp(shapes, f"{prefix}mlp.", config.hidden_size, config.intermediate_size, block)
        else:
            mlp(shapes, f"{prefix}mlp.", layer)
        for name in block.norms:
            norm(shapes, prefix + name, config.hidden_size, block.norm_bias)
    if block.final_norm:
        norm(shapes, f"model.{block.final_norm}", config.hidden_size, block.norm_bias)
    if not is_tied(config):
        shapes["lm_head.weight"] = (config.vocab_size, config.hidden_size)
    if block.head_bias:
        shapes["lm_head.bias"] = (config.vocab_size,)
    return shapes


def attention(shapes: Shapes, prefix: str, config: ModelConfig, block: Block) -> None:
    hidden, head = config.hidden_size, config.head_dim
    queries, keys = config.heads * head, config.kv_heads * head
    if block.fused_qkv:
        linear(shapes, f"{prefix}qkv_proj", hidden, queries + 2 * keys, block.qkv_bias)
    else:
        linear(shapes, f"{prefix}q_proj", hidden, queries, block.qkv_bias)
        linear(shapes, f"{prefix}k_proj", hidden, keys, block.qkv_bias)
        linear(shapes, f"{prefix}v_proj", hidden, keys, block.qkv_bias)
    linear(shapes, prefix + block.output, queries, hidden, block.output_bias)
    if block.query_norms:
        each_head = block.query_norms == "head"
        norm(shapes, f"{prefix}q_norm", head if each_head else queries)
        norm(shapes, f"{prefix}k_norm", head if each_head else keys)


def dense_mlp(shapes: Shapes, prefix: str, hidden: int, inner: int, block: Block) -> None:
    *entries, last = block.mlp
    for name in entries:
        linear(shapes, prefix + name, hidden, 2 * inner if name == "gate_up_proj" else inner, block.mlp_bias)
    linear(shapes, prefix + last, inner, hidden, block.mlp_bias)


def linear(shapes: Shapes, name: str, inputs: int, outputs: int, bias: bool = False) -> None:
    shapes[f"{name}.weight"] = (outputs, inputs)
    if bias:
        shapes[f"{name}.bias"] = (outputs,)


def norm(shapes: Shapes, name: str, width: int, bias: bool = False) -> None:
    shapes[f"{name}.weight"] = (width,)
    if bias:
        shapes[f"{name}.bias"] = (width,)


def is_tied(config: ModelConfig) -> bool:
    """Whether head and embedding are one matrix, as transformers decides it without weights."""
    if config.tied is not None:
        return config.tied
    return defaults_of(config.model_type).get("tie_word_embeddings") is True
