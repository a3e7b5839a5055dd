"""Small models of every family and the settings they are really trained under, for part (a) of the accuracy table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from profiles.settings import Settings

BASE = Settings(
    method="lora", device="cpu", compute_dtype="fp32", attention="sdpa", sequence_length=512, loss_chunk=256
)
_SHAPE: dict[str, Any] = {
    "vocab_size": 6000,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**_SHAPE, "model_type": "llama"},
    "llama tied": {**_SHAPE, "model_type": "llama", "tie_word_embeddings": True},
    "llama wide": {**_SHAPE, "model_type": "llama", "hidden_size": 512, "intermediate_size": 1408, "head_dim": 64},
    "qwen3": {**_SHAPE, "model_type": "qwen3", "tie_word_embeddings": True, "head_dim": 64},
    "gemma3": {
        **_SHAPE,
        "model_type": "gemma3_text",
        "tie_word_embeddings": True,
        "sliding_window": 128,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
    },
    "mistral": {**_SHAPE, "model_type": "mistral", "sliding_window": 512},
    "qwen2": {**_SHAPE, "model_type": "qwen2", "tie_word_embeddings": True},
    "phi3": {**_SHAPE, "model_type": "phi3", "pad_token_id": 0},
    "olmo2": {**_SHAPE, "model_type": "olmo2"},
    "mixtral": {**_SHAPE, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 6000,
        "n_embd": 256,
        "n_layer": 6,
        "n_head": 8,
        "n_positions": 2048,
        # A token that the small vocabulary has.
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
}


@dataclass(frozen=True)
class SmallCase:
    """A model (a key of CONFIGS) and how it is trained."""

    model: str
    settings: Settings

    @property
    def name(self) -> str:
        return f"{self.model}: {describe(self.settings)}"


def describe(settings: Settings) -> str:
    """The settings in a few words, what is as usual left out."""
    words = [settings.objective] if settings.objective != "next_token" else []
    words += [settings.method, settings.compute_dtype, f"{settings.micro_batch} x {settings.sequence_length}"]
    if settings.gradient_checkpointing:
        every = settings.gradient_checkpointing
        words.append("recomputing" if every == 1 else f"recomputing 1 in {every}")
    if settings.method == "partial":
        words.append(f"{settings.trained_layers} layers")
    if settings.method == "qlora" and not settings.double_quantisation:
        words.append("single quantisation")
    if settings.method in ("lora", "qlora") and settings.rank != 16:
        words.append(f"rank {settings.rank}")
    if settings.targets != "all-linear":
        words.append("+".join(target.removesuffix("_proj") for target in settings.targets))
    if settings.dropout:
        words.append("dropout")
    if settings.optimizer != "adamw":
        words.append(settings.optimizer)
    if settings.gradient_accumulation > 1:
        words.append("accumulating")
    if settings.attention == "eager":
        words.append("eager")
    if settings.offload_checkpoints:
        words.append("offloaded")
    return ", ".join(words)


def _case(model: str, **changes: Any) -> SmallCase:
    return SmallCase(model, replace(BASE, **changes))


CASES = (
    _case("llama"),
    _case("llama", gradient_checkpointing=1, sequence_length=2048),
    _case("llama", gradient_checkpointing=2, sequence_length=1024),
    _case("llama", sequence_length=128, micro_batch=8),
    _case("llama", targets=("q_proj", "v_proj"), rank=8, loss_chunk=64),
    _case("llama", dropout=0.1),
    _case("llama", compute_dtype="bf16", sequence_length=1024),
    _case("llama", compute_dtype="bf16", gradient_checkpointing=1, micro_batch=2),
    _case("llama", method="full"),
    _case("llama", method="full", sequence_length=128),
    _case("llama", method="full", gradient_checkpointing=1, sequence_length=1024, micro_batch=2),
    _case("llama", method="full", compute_dtype="bf16"),
    _case("llama", method="full", compute_dtype="bf16", gradient_checkpointing=1, sequence_length=1024),
    _case("llama", method="full", optimizer="adamw_8bit", gradient_checkpointing=1),
    _case("llama", method="full", optimizer="adafactor"),
    _case("llama", method="partial", trained_layers=2),
    _case("llama", method="partial", trained_layers=3, gradient_checkpointing=1, sequence_length=1024),
    _case("llama", method="partial", trained_layers=2, compute_dtype="bf16", micro_batch=4),
    _case("llama wide", method="qlora"),
    _case("llama wide", method="qlora", double_quantisation=False, gradient_checkpointing=1),
    _case("llama wide", method="qlora", compute_dtype="bf16", sequence_length=128),
    _case("llama tied", method="full", gradient_accumulation=2),
    _case("llama tied", gradient_accumulation=2),
    _case("qwen3"),
    _case("qwen3", compute_dtype="bf16", gradient_checkpointing=1, sequence_length=2048),
    _case("qwen3", method="full", micro_batch=2, sequence_length=256),
    _case("qwen3", method="qlora", gradient_checkpointing=1, sequence_length=1024),
    _case("gemma3"),
    _case("gemma3", gradient_checkpointing=1, sequence_length=1024),
    _case("gemma3", method="full", sequence_length=256),
    _case("mistral", sequence_length=1024),
    _case("mistral", method="partial", trained_layers=4),
    _case("mistral", method="full", gradient_checkpointing=1, sequence_length=2048),
    _case("mixtral"),
    _case("mixtral", gradient_checkpointing=1, micro_batch=4),
    _case("mixtral", method="full", sequence_length=256),
    _case("gpt2"),
    _case("gpt2", gradient_checkpointing=1, sequence_length=1024),
    _case("gpt2", method="full"),
    _case("gpt2", method="partial", trained_layers=2),
    _case("llama wide", rank=64, gradient_checkpointing=3, gradient_accumulation=3, compute_dtype="bf16"),
    _case("llama", attention="eager"),
    _case("llama", attention="eager", method="full", compute_dtype="bf16", gradient_checkpointing=1, micro_batch=2),
    _case("qwen2", micro_batch=3, sequence_length=384),
    _case("qwen2", method="full", compute_dtype="bf16", optimizer="adafactor", gradient_checkpointing=2),
    _case("phi3", gradient_checkpointing=1),
    _case("phi3", method="qlora", compute_dtype="bf16", dropout=0.05),
    _case("olmo2", method="partial", trained_layers=3, compute_dtype="bf16"),
    _case("olmo2", sequence_length=1536),
    _case("gemma3", method="partial", trained_layers=4, gradient_checkpointing=1, compute_dtype="bf16"),
    _case("mixtral", method="qlora", compute_dtype="bf16", sequence_length=1024),
    _case("gpt2", method="qlora", micro_batch=2, optimizer="paged_adamw_8bit"),
)
"""Every family in the ways that change what lives: method, dtype, recomputing, length and rows."""

OBJECTIVES = (
    *(
        _case("llama" if method != "qlora" else "llama wide", objective=objective, method=method, sequence_length=256)
        for objective in ("dpo", "orpo", "simpo", "kto", "classification", "embedding")
        for method in ("lora", "full", "qlora")
    ),
    _case("qwen3", objective="dpo", compute_dtype="bf16", gradient_checkpointing=1, micro_batch=2),
    _case("qwen3", objective="orpo", method="full", gradient_accumulation=2),
    _case("llama", objective="dpo", method="full", compute_dtype="bf16", gradient_checkpointing=1, micro_batch=2),
    _case("gpt2", objective="simpo", method="partial", trained_layers=2),
    _case("mixtral", objective="kto", micro_batch=2),
    _case("llama tied", objective="kto", method="full", compute_dtype="bf16"),
    _case("qwen2", objective="kto", gradient_accumulation=2, gradient_checkpointing=1),
    _case("llama", objective="classification", compute_dtype="bf16", micro_batch=4, sequence_length=128),
    _case("qwen3", objective="classification", method="full", gradient_checkpointing=1),
    _case("llama", objective="classification", method="partial", trained_layers=2, attention="eager"),
    _case("llama", objective="embedding", compute_dtype="bf16", micro_batch=4, sequence_length=128),
    _case("gemma3", objective="embedding", method="full", sequence_length=256),
    _case("llama wide", objective="embedding", gradient_checkpointing=1, sequence_length=1024),
)
"""What else can be minimised than the next token's loss."""

QUICK = (*CASES[::5], *OBJECTIVES[::5])
