"""Known families of decoders, from a config to the shape of every parameter: by formula, in a millisecond, no torch.

Names and shapes are those of transformers 5's module tree, tied parameters once; tests/fit/test_model_shapes.py
compares every family here with the tree transformers itself builds. A config with a switch
that no formula covers gives None.
"""

from __future__ import annotations

from collections.abc import Callable

from profiles.shapes.blocks import Block, Shapes, decoder
from profiles.shapes.config_defaults import defaults_of
from profiles.shapes.config_fields import Fields
from profiles.shapes.experts import deepseek, glm4_moe, gpt_oss, granitemoe, mixtral, olmoe, qwen2_moe, qwen3_moe
from profiles.shapes.gpt_architectures import gpt2, gpt_bigcode, gpt_neox
from profiles.shapes.model_config import ModelConfig
from profiles.shapes.safetensors_header import Tensor

Family = Callable[[ModelConfig, Fields], "Shapes | None"]

_POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
_FOUR_NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
_GLM4_NORMS = ("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm")
_UP_DOWN = ("up_proj", "down_proj")


def _llama(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    return decoder(config, Block(qkv_bias=bias, output_bias=bias, mlp_bias=fields.flag("mlp_bias") is True))


def _internlm3(config: ModelConfig, fields: Fields) -> Shapes:
    attention = fields.flag("qkv_bias") is True or fields.flag("attention_bias") is True
    bias = fields.flag("bias") is True or fields.flag("mlp_bias") is True
    return decoder(config, Block(qkv_bias=attention, output_bias=attention, mlp_bias=bias))


def _mistral(config: ModelConfig, fields: Fields) -> Shapes:
    return decoder(config, Block())


def _qwen2(config: ModelConfig, fields: Fields) -> Shapes:
    return decoder(config, Block(qkv_bias=True))


def _qwen3(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    return decoder(config, Block(qkv_bias=bias, output_bias=bias, query_norms="head"))


def _olmo(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    return decoder(config, Block(norms=(), qkv_bias=bias, output_bias=bias, final_norm=""))


def _olmo2(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    return decoder(config, Block(norms=_POST_NORMS, qkv_bias=bias, output_bias=bias, query_norms="width"))


def _seed_oss(config: ModelConfig, fields: Fields) -> Shapes:
    return decoder(
        config,
        Block(
            qkv_bias=fields.flag("attention_bias") is True,
            output_bias=fields.flag("attention_out_bias") is True,
            mlp_bias=fields.flag("mlp_bias") is True,
        ),
    )


def _gemma(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    return decoder(config, Block(qkv_bias=bias, output_bias=bias))


def _gemma2(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    return decoder(config, Block(norms=_FOUR_NORMS, qkv_bias=bias, output_bias=bias))


def _gemma3(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    return decoder(config, Block(norms=_FOUR_NORMS, qkv_bias=bias, output_bias=bias, query_norms="head"))


def _phi(config: ModelConfig, fields: Fields) -> Shapes | None:
    if fields.flag("qk_layernorm") is True:
        return None
    block = Block(
        norms=("input_layernorm",),
        norm_bias=True,
        qkv_bias=True,
        output="dense",
        output_bias=True,
        mlp=("fc1", "fc2"),
        mlp_bias=True,
        final_norm="final_layernorm",
        head_bias=True,
    )
    return decoder(config, block)


def _phi3(config: ModelConfig, fields: Fields) -> Shapes:
    return decoder(config, Block(fused_qkv=True, mlp=("gate_up_proj", "down_proj")))


def _glm(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    return decoder(config, Block(qkv_bias=bias, mlp=("gate_up_proj", "down_proj")))


def _glm4(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    return decoder(config, Block(norms=_GLM4_NORMS, qkv_bias=bias, mlp=("gate_up_proj", "down_proj")))


def _stablelm(config: ModelConfig, fields: Fields) -> Shapes | None:
    if fields.flag("qk_layernorm") is True:
        return None
    parallel = fields.flag("use_parallel_residual") is True
    norms = ("input_layernorm",) if parallel else ("input_layernorm", "post_attention_layernorm")
    return decoder(config, Block(norms=norms, norm_bias=True, qkv_bias=fields.flag("use_qkv_bias") is True))


def _starcoder2(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("use_bias") is True
    block = Block(norm_bias=True, qkv_bias=bias, output_bias=bias, mlp=("c_fc", "c_proj"), mlp_bias=bias)
    return decoder(config, block)


def _cohere(config: ModelConfig, fields: Fields) -> Shapes | None:
    if fields.flag("use_qk_norm") is True:
        return None
    bias = fields.flag("attention_bias") is True
    return decoder(config, Block(norms=("input_layernorm",), qkv_bias=bias, output_bias=bias))


def _exaone4(config: ModelConfig, fields: Fields) -> Shapes:
    return decoder(config, Block(norms=_POST_NORMS, query_norms="head"))


def _nemotron(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    mlp_bias = fields.flag("mlp_bias") is True
    return decoder(config, Block(norm_bias=True, qkv_bias=bias, output_bias=bias, mlp=_UP_DOWN, mlp_bias=mlp_bias))


def _arcee(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("attention_bias") is True
    mlp_bias = fields.flag("mlp_bias") is True
    return decoder(config, Block(qkv_bias=bias, output_bias=bias, mlp=_UP_DOWN, mlp_bias=mlp_bias))


def _ernie4_5(config: ModelConfig, fields: Fields) -> Shapes:
    bias = fields.flag("use_bias") is True
    return decoder(config, Block(qkv_bias=bias, output_bias=bias, mlp_bias=bias))


FAMILIES: dict[str, Family] = {
    "llama": _llama,
    "internlm3": _internlm3,
    "mistral": _mistral,
    "ministral3": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen2_moe": qwen2_moe,
    "qwen3_moe": qwen3_moe,
    "mixtral": mixtral,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi": _phi,
    "phi3": _phi3,
    "granite": _llama,
    "granitemoe": granitemoe,
    "olmo": _olmo,
    "olmo2": _olmo2,
    "olmo3": _olmo2,
    "olmoe": olmoe,
    "smollm3": _llama,
    "seed_oss": _seed_oss,
    "gpt2": gpt2,
    "gpt_bigcode": gpt_bigcode,
    "gpt_neox": gpt_neox,
    "deepseek_v2": deepseek,
    "deepseek_v3": deepseek,
    "starcoder2": _starcoder2,
    "cohere": _cohere,
    "cohere2": _cohere,
    "stablelm": _stablelm,
    "exaone4": _exaone4,
    "glm": _glm,
    "glm4": _glm4,
    "glm4_moe": glm4_moe,
    "nemotron": _nemotron,
    "arcee": _arcee,
    "ernie4_5": _ernie4_5,
    "gpt_oss": gpt_oss,
}


def expand(config: ModelConfig) -> dict[str, Tensor] | None:
    """Every parameter of the model `config` describes, in the dtype its config names; None for an unknown family.

    A flag or count of the wrong type raises Problem.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        return None
    shapes = family(config, Fields(config.path, config.values, defaults_of(config.model_type)))
    if shapes is None:
        return None
    return {name: Tensor(shape, config.dtype) for name, shape in shapes.items()}
