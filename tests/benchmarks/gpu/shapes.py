"""Real models' shapes as config.json states them, for models of random weights."""

from __future__ import annotations

from typing import Any


def _llama(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": tied,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "1b": _llama(2048, 8192, 16, 32, 8, tied=True) | {"head_dim": 64},
    "3b": _llama(3072, 8192, 28, 24, 8, tied=True) | {"head_dim": 128},
    "8b": _llama(4096, 14336, 32, 32, 8, tied=False),
    # Qwen3-14B's: norms on queries and keys, another vocabulary.
    "14b": _llama(5120, 17408, 40, 40, 8, tied=False)
    | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 151936, "head_dim": 128},
    # OLMoE-1B-7B's: 64 experts, 8 for each token.
    "moe": {
        "architectures": ["OlmoeForCausalLM"],
        "model_type": "olmoe",
        "hidden_size": 2048,
        "intermediate_size": 1024,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "vocab_size": 50304,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
}

SMOKE_SHAPE = _llama(256, 704, 4, 4, 2, tied=False) | {"vocab_size": 4000, "max_position_embeddings": 4096}
