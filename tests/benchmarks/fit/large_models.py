"""Shapes from 1B to 70B on a GPU, for part (b) of the accuracy table: what no CPU can run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fit.small_models import describe

from profiles.settings import Settings

BASE = Settings(
    method="lora",
    device="cuda",
    compute_dtype="bf16",
    attention="varlen",
    sequence_length=2048,
    gradient_checkpointing=1,
)


def _config(model_type: str, hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int, **more: Any) -> Any:
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        **more,
    }


def _gemma3(hidden: int, inner: int, layers: int, heads: int, kv: int, window: int, head_dim: int = 256) -> Any:
    kinds = ["full_attention" if (layer + 1) % 6 == 0 else "sliding_attention" for layer in range(layers)]
    own = {"head_dim": head_dim, "sliding_window": window, "layer_types": kinds, "tie_word_embeddings": True}
    return _config("gemma3_text", hidden, inner, layers, heads, kv, 262208, **own)


_TIED = {"tie_word_embeddings": True}
_128 = {"head_dim": 128}
CONFIGS: dict[str, dict[str, Any]] = {
    "Llama 1B": _config("llama", 2048, 8192, 16, 32, 8, 128256, **_TIED),
    "Llama 3B": _config("llama", 3072, 8192, 28, 24, 8, 128256, **_TIED),
    "Llama 8B": _config("llama", 4096, 14336, 32, 32, 8, 128256),
    "Llama 70B": _config("llama", 8192, 28672, 80, 64, 8, 128256),
    "Qwen3 0.6B": _config("qwen3", 1024, 3072, 28, 16, 8, 151936, **_128, **_TIED),
    "Qwen3 1.7B": _config("qwen3", 2048, 6144, 28, 16, 8, 151936, **_128, **_TIED),
    "Qwen3 4B": _config("qwen3", 2560, 9728, 36, 32, 8, 151936, **_128, **_TIED),
    "Qwen3 8B": _config("qwen3", 4096, 12288, 36, 32, 8, 151936, **_128),
    "Qwen3 14B": _config("qwen3", 5120, 17408, 40, 40, 8, 151936, **_128),
    "Qwen3 32B": _config("qwen3", 5120, 25600, 64, 64, 8, 151936, **_128),
    "Mistral 7B": _config("mistral", 4096, 14336, 32, 32, 8, 32768, sliding_window=None),
    "Gemma3 1B": _gemma3(1152, 6912, 26, 4, 1, 512),
    "Gemma3 12B": _gemma3(3840, 15360, 48, 16, 8, 1024),
    "Gemma3 27B": _gemma3(5376, 21504, 62, 32, 16, 1024, head_dim=128),
    "Mixtral 8x7B": _config("mixtral", 4096, 14336, 32, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2),
}


@dataclass(frozen=True)
class LargeCase:
    """A model (a key of CONFIGS) and how it is trained."""

    model: str
    settings: Settings

    @property
    def name(self) -> str:
        return f"{self.model}: {describe(self.settings)}"


def _cases() -> tuple[LargeCase, ...]:
    """Every model under LoRA and QLoRA, short and long, with and without recomputing; up to 14B also wholly."""
    cases = []
    for index, model in enumerate(CONFIGS):
        changes: list[dict[str, Any]] = [
            {"sequence_length": (1024, 2048, 4096)[index % 3], "micro_batch": (4, 1, 2)[index % 3]},
            {"method": "qlora", "sequence_length": (8192, 16384, 32768)[index % 3]},
            {"gradient_checkpointing": 0, "sequence_length": (2048, 1024, 4096)[index % 3], "rank": 64},
            {"method": "partial", "trained_layers": 4 + index % 3, "gradient_checkpointing": index % 2},
        ]
        if not any(size in model for size in ("32B", "70B", "27B", "8x7B")):
            optimizer = ("adamw", "adamw_8bit", "adafactor")[index % 3]
            changes.append({"method": "full", "optimizer": optimizer, "sequence_length": (4096, 1024, 2048)[index % 3]})
        cases += [LargeCase(model, replace(BASE, **each)) for each in changes]
    eight: list[dict[str, Any]] = [
        {"gradient_checkpointing": 2, "sequence_length": 8192},
        {"gradient_checkpointing": 3, "method": "qlora", "double_quantisation": False, "sequence_length": 1024},
        {"offload_checkpoints": True, "sequence_length": 32768},
        {"dropout": 0.05, "targets": ("q_proj", "v_proj"), "gradient_checkpointing": 0},
        {"method": "full", "gradient_checkpointing": 0, "sequence_length": 1024, "gradient_accumulation": 4},
        {"method": "qlora", "gradient_accumulation": 8, "optimizer": "paged_adamw_8bit"},
        {"compute_dtype": "fp16", "attention": "sdpa", "method": "qlora", "sequence_length": 4096},
    ]
    return (*cases, *(LargeCase("Llama 8B", replace(BASE, **each)) for each in eight))


CASES = _cases()
QUICK = CASES[::9]
