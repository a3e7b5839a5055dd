"""CUDA's kernels on fake CPU tensors: attention, softmax, dropout, grouped products, and inputs that wait in RAM.

Each makes and keeps what the kernel in whose place it stands makes and keeps; sources are torch's, under aten/native.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class _FlashAttention(torch.autograd.Function):
    """Flash attention 2 on CUDA, for (tokens, heads, width): queries, keys, values, the output and a log-sum-exp stay.

    Its backward sums the queries' gradient in float32, and with grouped queries makes the keys' and values' once per
    query head before they are added up (aten/native/transformers/cuda/flash_attn).
    """

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = query.new_empty(query.shape)
        sums = query.new_empty(query.shape[1::-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, sums)
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        query, key, value, _, sums = ctx.saved_tensors
        gradients = tuple(each.new_empty(each.shape) for each in (query, key, value))
        working = [torch.empty_like(sums), query.new_empty(query.shape, dtype=torch.float32)]
        if query.shape[1] != key.shape[1]:
            working += [query.new_empty(query.shape) for _ in range(2)]
        del working
        return gradients


class _EfficientAttention(torch.autograd.Function):
    """CUDA's memory-efficient attention, for (rows, heads, tokens, width) of as many key as query heads."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        rows, heads, tokens, width = query.shape
        output = query.new_empty((rows, tokens, heads, width)).transpose(1, 2)
        sums = query.new_empty((rows, heads, math.ceil(tokens / 32) * 32), dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, output, sums)
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, _, _, sums = ctx.saved_tensors
        delta = torch.empty_like(sums)
        gradients = tuple(each.new_empty(each.shape) for each in (query, key, value))
        del delta
        return (*gradients, None)


class _CudaSoftmax(torch.autograd.Function):
    """CUDA's softmax: its backward begins with a tensor of gradient times output (aten/native/cuda/SoftMax.cu)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        output = torch.empty_like(x, dtype=dtype)
        ctx.save_for_backward(output)
        ctx.dtype = x.dtype
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (output,) = ctx.saved_tensors
        product = torch.empty_like(output)
        made = torch.empty_like(output, dtype=ctx.dtype)
        del product
        return made, None


def softmax(x: torch.Tensor, dim: int | None = None, *_: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    """In the place of torch's softmax; under autocast CUDA computes it in float32, which it does from fp16 at once."""
    if dtype is None:
        dtype = torch.float32 if torch.is_autocast_enabled(x.device.type) else x.dtype
    at_once = x.dtype is torch.float16 and dtype is torch.float32
    return _CudaSoftmax.apply(x if at_once else x.to(dtype), dtype)


def varlen_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    """In the place of engine.train.document_attention.varlen_attention, shapes as there."""
    parts = (tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value))
    return _FlashAttention.apply(*parts)[None], None


def efficient_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """In the place of torch's scaled_dot_product_attention where CUDA has no flash attention."""
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = (tensor.repeat_interleave(groups, 1) for tensor in (key, value))
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
    return _EfficientAttention.apply(query, key, value, attn_mask)


class _GroupedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        needs_rows, needs_matrices = ctx.needs_input_grad
        ctx.shape, ctx.strides = matrices.shape, matrices.stride()  # its gradient is laid out as it is
        ctx.save_for_backward(rows if needs_matrices else None, matrices if needs_rows else None)
        return rows.new_empty((len(rows), matrices.shape[-1]))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = grad_outputs
        rows, matrices = ctx.saved_tensors
        return (
            None if matrices is None else gradient.new_empty((len(gradient), matrices.shape[1])),
            None if rows is None else rows.new_empty_strided(ctx.shape, ctx.strides),
        )


def grouped_mm(rows: torch.Tensor, matrices: torch.Tensor, *, offs: torch.Tensor, **_: Any) -> torch.Tensor:
    """In the place of torch's grouped_mm, whose shape rules know bf16 only: (rows, in) x (experts, in, out)."""
    return _GroupedProduct.apply(rows, matrices)


class CudaDropout(torch.nn.Module):
    """Dropout as CUDA's kernel does it: a mask of one byte a number is kept."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.native_dropout(x, self.share, self.training)[0] if self.training else x


def use_cuda_dropout(model: torch.nn.Module) -> None:
    """Replace the dropouts of `model` that drop anything."""
    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Dropout and module.p:
            model.set_submodule(name, CudaDropout(module.p))


@contextmanager
def stand_in_kernels(*, cuda: bool) -> Iterator[None]:
    """Within, torch's functions that fake tensors cannot run, or that differ on CUDA, are those of this file."""
    stand_ins: dict[str, Any] = {"grouped_mm": grouped_mm}
    if cuda:
        stand_ins |= {"scaled_dot_product_attention": efficient_attention, "softmax": softmax}
    with mock.patch.multiple(F, **stand_ins):
        yield


def host_checkpoint(layer: Callable[..., Any], hidden: torch.Tensor, *others: Any) -> Any:
    """engine.methods.recomputing.offloading_checkpoint, with the meta device for the host: nothing there is counted."""

    kind, device = (hidden.shape, hidden.dtype), hidden.device  # not `hidden` itself: it would live on

    def to_host(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(tensor, device="meta") if (tensor.shape, tensor.dtype) == kind else tensor

    def to_device(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(tensor, device=device) if tensor.device.type == "meta" else tensor

    with saved_tensors_hooks(to_host, to_device):
        return checkpoint(layer, hidden, *others, use_reentrant=False)
