"""Attention for rows that hold several documents: each document attends to itself only, and no mask is ever built.

A batch is one row of concatenated documents, and their lengths travel through the model as the keyword argument
`document_lengths` (transformers passes it on to the attention function unread). On a GPU with flash attention this is
one varlen call; elsewhere one fused attention call per document. Both are exact and cost the sum of the squared
document lengths instead of the square of the row.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AttentionInterface

# transformers takes any name with "flash" in it for a kernel to import; and a name that its mask table does not
# know makes it build no mask, which is what is wanted.
DOCUMENT_ATTENTION = "finetui_documents"
VARLEN_ATTENTION = "finetui_varlen"

# torch's varlen attention wraps flash attention, which needs compute capability 8.0 and heads of at most 256.
VARLEN_CAPABILITY = (8, 0)
VARLEN_HEAD_LIMIT = 256


def register() -> None:
    """Make both attention functions known to transformers by name."""
    AttentionInterface.register(DOCUMENT_ATTENTION, document_attention)
    AttentionInterface.register(VARLEN_ATTENTION, varlen_attention)


def varlen_available(compute: torch.dtype, head_dim: int) -> bool:
    """Whether this machine's GPU and torch can run varlen flash attention for this dtype and head size."""
    if not torch.cuda.is_available() or compute is torch.float32 or head_dim > VARLEN_HEAD_LIMIT:
        return False
    return torch.cuda.get_device_capability() >= VARLEN_CAPABILITY


def document_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    document_lengths: Sequence[int],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document. query: (1, heads, tokens, head_dim), key and value: (1, KV heads, ...).

    Returns (1, tokens, heads, head_dim).
    """
    lengths = list(document_lengths)
    groups = query.shape[1] // key.shape[1]
    outputs = []
    for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True):
        window = _window_mask(q.shape[2], sliding_window, q.device)
        outputs.append(
            F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=window,
                is_causal=window is None,
                dropout_p=dropout,
                scale=scaling,
                enable_gqa=groups > 1,
            )
        )
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)
    return joined.transpose(1, 2), None


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    document_lengths: Sequence[int],
    document_starts: torch.Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """As document_attention, in one flash attention call. `document_starts`: int32 (documents + 1,), on the device."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    options: dict[str, Any] = {"scale": scaling}
    known = inspect.signature(varlen_attn).parameters
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in known:
            options["enable_gqa"] = True
        else:  # torch 2.11
            k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
    if "window_size" in known:
        # flash attention counts the keys to the left of a query, transformers the query as well
        options["window_size"] = (sliding_window - 1 if sliding_window else -1, 0)
    else:
        options["is_causal"] = True
    longest = max(document_lengths)
    output = varlen_attn(q, k, v, document_starts, document_starts, longest, longest, **options)
    assert isinstance(output, torch.Tensor)
    return output[None], None


def document_starts(lengths: Sequence[int]) -> torch.Tensor:
    """Cumulative document lengths from 0, int32, as flash attention wants them."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def _window_mask(tokens: int, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """The causal mask of a sliding window over `tokens`; None where the window does not cut anything."""
    if not sliding_window or tokens <= sliding_window:
        return None
    position = torch.arange(tokens, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance < sliding_window)
