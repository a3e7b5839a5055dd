"""What a training step is asked to do, as far as its memory depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}

Dtype = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Settings:
    """One training configuration, every "auto" resolved. Lengths in tokens."""

    method: Literal["lora", "qlora", "full"]
    device: Literal["cpu", "cuda"]
    compute_dtype: Dtype
    """What matrix products run in; below fp32 the step runs under autocast."""
    attention: Literal["varlen", "sdpa", "eager"]
    sequence_length: int
    micro_batch: int = 1
    gradient_accumulation: int = 1
    rank: int = 16
    dropout: float = 0.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = "adamw"
    gradient_checkpointing: int = 0
    loss_chunk: int = 1024

    @property
    def weight_dtype(self) -> Dtype:
        """How unquantised weights are held: full tuning needs fp32, bf16 rounds small updates away."""
        return "fp32" if self.method == "full" else self.compute_dtype

    @property
    def tokens(self) -> int:
        """Tokens that go through the model at once."""
        return self.sequence_length * self.micro_batch

    @property
    def autocast(self) -> bool:
        return self.compute_dtype != "fp32"
