"""The older families with names of their own: GPT-2, GPT-BigCode, GPT-NeoX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from profiles.shapes.blocks import Shapes, is_tied, linear, norm
from profiles.shapes.config_fields import Fields
from profiles.shapes.model_config import ModelConfig


def gpt2(config: ModelConfig, fields: Fields) -> Shapes | None:
    """Its linear layers are transformers' Conv1D: weights are (inputs, outputs)."""
    return _gpt2(config, fields, 3 * config.hidden_size, _conv1d)


def gpt_bigcode(config: ModelConfig, fields: Fields) -> Shapes | None:
    return _gpt2(config, fields, config.hidden_size + 2 * config.kv_heads * config.head_dim, partial(linear, bias=True))


def _gpt2(
    config: ModelConfig, fields: Fields, attention_outputs: int, matrix: Callable[[Shapes, str, int, int], None]
) -> Shapes | None:
    """GPT-2's tree, with queries, keys and values in one matrix of `attention_outputs` rows."""
    if fields.flag("add_cross_attention") is True or config.context_length is None:
        return None
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: Shapes = {
        "transformer.wte.weight": (config.vocab_size, hidden),
        "transformer.wpe.weight": (config.context_length, hidden),
    }
    for layer in range(config.layers):
        prefix = f"transformer.h.{layer}."
        norm(shapes, f"{prefix}ln_1", hidden, bias=True)
        matrix(shapes, f"{prefix}attn.c_attn", hidden, attention_outputs)
        matrix(shapes, f"{prefix}attn.c_proj", hidden, hidden)
        norm(shapes, f"{prefix}ln_2", hidden, bias=True)
        matrix(shapes, f"{prefix}mlp.c_fc", hidden, inner)
        matrix(shapes, f"{prefix}mlp.c_proj", inner, hidden)
    norm(shapes, "transformer.ln_f", hidden, bias=True)
    if not is_tied(config):
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def gpt_neox(config: ModelConfig, fields: Fields) -> Shapes:
    hidden, inner = config.hidden_size, config.intermediate_size
    bias = fields.flag("attention_bias") is not False
    shapes: Shapes = {"gpt_neox.embed_in.weight": (config.vocab_size, hidden)}
    for layer in range(config.layers):
        prefix = f"gpt_neox.layers.{layer}."
        norm(shapes, f"{prefix}input_layernorm", hidden, bias=True)
        norm(shapes, f"{prefix}post_attention_layernorm", hidden, bias=True)
        linear(shapes, f"{prefix}attention.query_key_value", hidden, 3 * hidden, bias)
        linear(shapes, f"{prefix}attention.dense", hidden, hidden, bias)
        linear(shapes, f"{prefix}mlp.dense_h_to_4h", hidden, inner, bias=True)
        linear(shapes, f"{prefix}mlp.dense_4h_to_h", inner, hidden, bias=True)
    norm(shapes, "gpt_neox.final_layer_norm", hidden, bias=True)
    if not is_tied(config):
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def _conv1d(shapes: Shapes, name: str, inputs: int, outputs: int) -> None:
    shapes[f"{name}.weight"] = (inputs, outputs)
    shapes[f"{name}.bias"] = (outputs,)
