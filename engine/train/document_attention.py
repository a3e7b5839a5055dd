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
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document. query: (1, heads, tokens, head_dim), key and value: (1, KV heads, ...).

    Returns (1, tokens, heads, head_dim). A dropout of the config's is left out, as varlen_attention does: with it
    torch has no fused kernel, and keeps the square of every document per head.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)
    lengths = list(document_lengths)
    window = None
    if sliding_window and max(lengths) > sliding_window:
        window = _window_mask(max(lengths), sliding_window, value.dtype, value.device)
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and not _groups_heads(value, window):
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
        groups = 1
    outputs = []
    for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True):
        length = q.shape[2]
        mask = window[:length, :length] if window is not None and length > (sliding_window or 0) else None
        outputs.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=groups > 1
            )
        )
    # In the order it is read in, or the layer would copy it once more.
    outputs = [each.transpose(1, 2) for each in outputs]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1), None


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

    # Where weights are held in fp32, rotary tables and norms make queries and keys fp32 under autocast, which casts
    # for torch's own attention but not for this one. Values come straight from their projection.
    q, k, v = (tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value))
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


def forget_masks() -> None:
    """Drop the masks that are kept for later calls."""
    _WINDOW_MASKS.clear()


_WINDOW_MASKS: dict[tuple[int, torch.dtype, torch.device], torch.Tensor] = {}


def _window_mask(tokens: int, sliding_window: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What a causal sliding window adds to the scores: 0 or minus infinity, at least (tokens, tokens).

    One for all layers and documents, since a shorter document's is its corner. Of numbers, since torch makes such a
    tensor of a boolean mask in every call, and keeps each for the backward.
    """
    known = _WINDOW_MASKS.get((sliding_window, dtype, device))
    if known is None or len(known) < tokens:
        query = torch.arange(tokens, dtype=torch.int32, device=device)[:, None]
        key = query.t()
        known = torch.zeros((tokens, tokens), dtype=dtype, device=device)
        known.masked_fill_(key > query, -torch.inf).masked_fill_(query - sliding_window >= key, -torch.inf)
        _WINDOW_MASKS[sliding_window, dtype, device] = known
    return known


def _groups_heads(value: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether torch's fused attention reads fewer key heads than query heads here. On a GPU only flash attention does,
    and without it torch would fall back to the square of every document per head."""
    if not value.is_cuda:
        return True
    return mask is None and value.dtype is not torch.float32 and torch.cuda.get_device_capability() >= VARLEN_CAPABILITY
