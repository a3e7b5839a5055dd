"""What a training step is asked to do, as far as its memory depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}

Dtype = Literal["fp32", "bf16", "fp16"]
Method = Literal["lora", "qlora", "partial", "full"]
Attention = Literal["varlen", "sdpa", "eager"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor"]
Objective = Literal["next_token", "dpo", "orpo", "simpo", "kto", "classification", "embedding"]

SEQUENCES = {"dpo": 2, "orpo": 2, "simpo": 2, "embedding": 2}
"""Sequences of a row for objectives that compare them: a better and a worse answer, an anchor and its positive."""

REFERRING = ("dpo", "kto")
"""Objectives that compare with the untouched base, whose forward over all rows comes first."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One training configuration, every "auto" resolved. Lengths in tokens."""

    method: Method
    device: Literal["cpu", "cuda"]
    compute_dtype: Dtype
    """What matrix products run in; below fp32 the step runs under autocast."""
    attention: Attention
    sequence_length: int
    micro_batch: int = 1
    gradient_accumulation: int = 1
    rank: int = 16
    dropout: float = 0.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    trained_layers: int = 4
    """partial: how many of the last decoder layers learn."""
    double_quantisation: bool = True
    optimizer: Optimizer = "adamw"
    gradient_checkpointing: int = 0
    offload_checkpoints: bool = False
    """Whether the inputs of layers that recompute wait in RAM instead of on the GPU."""
    loss_chunk: int = 1024
    objective: Objective = "next_token"
    answers: int = 0
    """Held-out rows answered before and after training; 0 for none."""
    max_new_tokens: int = 256

    @property
    def weight_dtype(self) -> Dtype:
        """How weights that do not learn are held; full and partial tuning hold those that do in fp32, since bf16
        rounds small updates away."""
        return "fp32" if self.method == "full" else self.compute_dtype

    @property
    def sequences(self) -> int:
        """Sequences of a row, each of at most `sequence_length` tokens."""
        return SEQUENCES.get(self.objective, 1)

    @property
    def tokens(self) -> int:
        """Tokens that go through the model at once, at most."""
        return self.sequence_length * self.micro_batch * self.sequences

    @property
    def writes(self) -> bool:
        """Whether the model predicts tokens, for which logits are needed; a class or a vector needs none."""
        return self.objective not in ("classification", "embedding")

    @property
    def autocast(self) -> bool:
        return self.compute_dtype != "fp32"
