"""The older families with names of their own: GPT-2, GPT-BigCode, GPT-NeoX."""

from __future__ import annotations

from profiles.shapes.blocks import Shapes, is_tied, linear, norm
from profiles.shapes.config_fields import Fields
from profiles.shapes.model_config import ModelConfig


def gpt2(config: ModelConfig, fields: Fields) -> Shapes | None:
    """Its linear layers are transformers' Conv1D: weights are (inputs, outputs)."""
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
        _conv1d(shapes, f"{prefix}attn.c_attn", hidden, 3 * hidden)
        _conv1d(shapes, f"{prefix}attn.c_proj", hidden, hidden)
        norm(shapes, f"{prefix}ln_2", hidden, bias=True)
        _conv1d(shapes, f"{prefix}mlp.c_fc", hidden, inner)
        _conv1d(shapes, f"{prefix}mlp.c_proj", inner, hidden)
    norm(shapes, "transformer.ln_f", hidden, bias=True)
    if not is_tied(config):
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def gpt_bigcode(config: ModelConfig, fields: Fields) -> Shapes | None:
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
        linear(shapes, f"{prefix}attn.c_attn", hidden, hidden + 2 * config.kv_heads * config.head_dim, bias=True)
        linear(shapes, f"{prefix}attn.c_proj", hidden, hidden, bias=True)
        norm(shapes, f"{prefix}ln_2", hidden, bias=True)
        linear(shapes, f"{prefix}mlp.c_fc", hidden, inner, bias=True)
        linear(shapes, f"{prefix}mlp.c_proj", inner, hidden, bias=True)
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
