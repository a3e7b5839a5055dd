"""What autograd keeps of one decoder layer, in bytes per token, and what its backward needs on top.

Counted from the operations of transformers 5's Llama-type layers as our loop runs them (document attention,
fused LoRA, no gradient for a frozen weight), not fitted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from profiles.geometry import Geometry
from profiles.settings import DTYPE_BYTES, Settings

_FP32 = 4

ATTENTION_READERS = ("q_proj", "k_proj", "v_proj")
OUTPUT_READERS = ("o_proj",)
MLP_READERS = ("gate_proj", "up_proj")
DOWN_READERS = ("down_proj",)


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer under given settings: the widths of its activations and what learns in it."""

    hidden: int
    inner: int
    queries: int
    keys: int
    heads: int
    head_norms: bool
    """Whether queries and keys are normalised per head (Qwen3)."""
    learning: frozenset[str]
    """Names of the linear layers whose own or adapter weights learn."""
    settings: Settings

    @classmethod
    def of(cls, geometry: Geometry, settings: Settings) -> Layer:
        names = {name.rpartition(".")[2] for name in geometry.linear_shapes}
        everything = settings.method == "full" or settings.targets == "all-linear"
        return cls(
            hidden=geometry.hidden_size,
            inner=geometry.intermediate_size,
            queries=geometry.heads * geometry.head_dim,
            keys=geometry.kv_heads * geometry.head_dim,
            heads=geometry.heads,
            head_norms=any(name.endswith(".q_norm.weight") for name in geometry.tensors),
            learning=frozenset(names) if everything else frozenset(settings.targets),
            settings=settings,
        )

    @property
    def compute_bytes(self) -> int:
        """Size of a number in the compute dtype."""
        return DTYPE_BYTES[self.settings.compute_dtype]

    @property
    def residual_bytes(self) -> int:
        """Size of a number in the residual stream, which keeps the embedding's dtype."""
        return DTYPE_BYTES[self.settings.weight_dtype]

    def saved_bytes(self) -> int:
        """Everything kept of one token until the layer's backward."""
        return (
            2 * self.norm_bytes(self.hidden)
            + self.input_bytes(self.hidden, ATTENTION_READERS)
            + self.attention_bytes()
            + self.attention_output_bytes()
            + self.input_bytes(self.hidden, MLP_READERS)
            + self.mlp_bytes()
            + self.input_bytes(self.inner, DOWN_READERS)
            + self.adapter_bytes()
        )

    def norm_bytes(self, width: int) -> int:
        """An RMSNorm: its input in fp32 and, where its weight learns, the normalised input."""
        return _FP32 * width + (self.residual_bytes * width if self.settings.method == "full" else 0)

    def input_bytes(self, width: int, readers: Collection[str]) -> int:
        """The input that the linear layers `readers` share, kept for those of them that learn."""
        count = sum(name in self.learning for name in readers)
        if not count:
            return 0
        if self.settings.method != "full" and self.settings.dropout:
            # Each adapter keeps its own dropped copy and the mask: a byte on CUDA, a number on the CPU.
            mask = 1 if self.settings.device == "cuda" else self.compute_bytes
            return count * (self.compute_bytes + mask) * width
        # Autocast casts an fp32 tensor anew for each reader; in the compute dtype all readers share it.
        is_cast = self.residual_bytes != self.compute_bytes and width == self.hidden
        return (count if is_cast else 1) * self.compute_bytes * width

    def attention_bytes(self) -> int:
        """Fused attention keeps queries, keys, values, its output and a log-sum-exp per head."""
        kept = self.compute_bytes * (2 * self.queries + 2 * self.keys) + _FP32 * self.heads
        if self.head_norms:
            kept += self.norm_bytes(self.queries + self.keys)
        if self.settings.attention == "eager":
            # The softmax in fp32 and its copy in the compute dtype, over the whole length.
            copy = self.compute_bytes if self.settings.autocast else 0
            kept += (_FP32 + copy) * self.heads * self.settings.sequence_length
        return kept

    def attention_output_bytes(self) -> int:
        """o_proj's input: one call per document leaves pieces, which are joined into a new tensor."""
        if self.settings.attention == "sdpa":
            return self.input_bytes(self.queries, OUTPUT_READERS)
        return 0

    def mlp_bytes(self) -> int:
        """A gated MLP keeps gate, activated gate and up."""
        return 3 * self.compute_bytes * self.inner

    def adapter_bytes(self) -> int:
        """LoRA keeps the narrow product with A for the gradient of B."""
        if self.settings.method == "full":
            return 0
        adapted = self.learning & {*ATTENTION_READERS, *OUTPUT_READERS, *MLP_READERS, *DOWN_READERS}
        return len(adapted) * self.settings.rank * self.compute_bytes

    def backward_bytes(self) -> int:
        """What the layer's backward adds at its widest: the gradients of gate, up and their product.

        By then the product itself, where it was kept, is freed again.
        """
        freed = self.compute_bytes * self.inner if "down_proj" in self.learning else 0
        widest = 3 * self.compute_bytes * self.inner - freed
        if self.settings.attention == "eager":
            # Softmax backward holds the gradient before and after it; two fp32 squares per head.
            squares = 2 * _FP32 * self.heads * self.settings.sequence_length
            widest = max(widest, squares)
        return widest + self.residual_bytes * self.hidden
