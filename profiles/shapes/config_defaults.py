"""What transformers 5 takes for a field that a config.json leaves out, by model type.

config.json keeps what differs from the class's defaults in many releases (Gemma 3's text_config has no
num_attention_heads), so an exact shape needs them. Only fields that shape a model are here; sizes without which a file
is plainly not whole (Llama's hidden_size) are not, so that a damaged one is told.
tests/fit/test_model_shapes.py compares them with the installed transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GEMMA = {"head_dim": 256, "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh"}
_GEMMA_2 = {**_GEMMA, "num_key_value_heads": 4, "num_attention_heads": 8, "sliding_window": 4096}
_GPT2 = {"tie_word_embeddings": True, "hidden_act": "gelu_new", "max_position_embeddings": 1024}
_DEEPSEEK = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
_MIXTURE = {"decoder_sparse_step": 1}

_DEFAULTS: dict[str, dict[str, Any]] = {
    "internlm3": {"num_key_value_heads": 2, "head_dim": 128},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "ministral3": {"num_key_value_heads": 8, "head_dim": 128},
    "mixtral": {"num_key_value_heads": 8, "num_experts": 8, "num_experts_per_tok": 2},
    "qwen2": {"sliding_window": 4096},
    "qwen3": {"head_dim": 128, "sliding_window": 4096},
    "qwen2_moe": {
        **_MIXTURE,
        "sliding_window": 4096,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "qkv_bias": True,
    },
    "qwen3_moe": {
        **_MIXTURE,
        "sliding_window": 4096,
        "num_key_value_heads": 4,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
    },
    "gemma": _GEMMA,
    "gemma2": _GEMMA_2,
    "gemma3_text": {**_GEMMA_2, "vocab_size": 262_208, "max_position_embeddings": 131_072},
    "vaultgemma": _GEMMA_2,
    "smollm3": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "seed_oss": {"num_key_value_heads": 8, "head_dim": 128, "attention_bias": True},
    "gpt2": _GPT2,
    "gpt_bigcode": {**_GPT2, "hidden_act": "gelu_pytorch_tanh", "multi_query": True},
    "gpt_neox": {"attention_bias": True, "hidden_act": "gelu"},
    "phi": {"hidden_act": "gelu_new"},
    "deepseek_v2": {
        **_DEEPSEEK,
        "q_lora_rank": 1536,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "moe_intermediate_size": 1407,
        "first_k_dense_replace": 0,
    },
    "deepseek_v3": {
        **_DEEPSEEK,
        "q_lora_rank": 1536,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048,
        "first_k_dense_replace": 3,
    },
    "starcoder2": {
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "use_bias": True,
        "hidden_act": "gelu_pytorch_tanh",
    },
    "cohere": {"tie_word_embeddings": True},
    "cohere2": {"tie_word_embeddings": True, "sliding_window": 4096},
    "olmo3": {"sliding_window": 4096},
    "olmoe": {"num_experts": 64, "num_experts_per_tok": 8},
    "granitemoe": {"num_experts": 8, "num_experts_per_tok": 2},
    "exaone4": {"sliding_window": 4096, "sliding_window_pattern": 4},
    "glm": {"num_key_value_heads": 2, "head_dim": 128, "attention_bias": True},
    "glm4": {"num_key_value_heads": 2, "head_dim": 128, "attention_bias": True},
    "nemotron": {"hidden_act": "relu2"},
    "arcee": {"hidden_act": "relu2"},
    "apertus": {"hidden_act": "xielu"},
    "ernie4_5": {"head_dim": 128, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "gpt_oss": {
        "head_dim": 64,
        "num_key_value_heads": 8,
        "num_experts": 128,
        "num_experts_per_tok": 4,
        "attention_bias": True,
        "sliding_window": 128,
    },
}


# Their heads are always hidden_size / heads wide, whatever a head_dim says.
WITHOUT_HEAD_DIM = frozenset({"stablelm", "gpt2", "gpt_bigcode", "gpt_neox"})


def defaults_of(model_type: str) -> Mapping[str, Any]:
    """The defaults of a known model type, by canonical field name; empty for others."""
    return _DEFAULTS.get(model_type, {})
