"""Log-probabilities of whole sequences, without ever holding the logits.

What a preference loss makes of a sequence's log-probability is known only once all its tokens were seen, so the slope
of each token's is kept as if the loss were their sum, and multiplied in the backward by what the loss makes of its
sequence: no logits survive a chunk. Where the head itself learns, its gradient needs that factor as well, and the
chunks' logits are computed again in the backward instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from engine.objectives.cross_entropy import Head


class _LogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        labels: torch.Tensor,
        owners: torch.Tensor,
        count: int,
        head: Head,
        chunk: int,
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        totals = torch.zeros(count, dtype=torch.float32, device=hidden.device)
        slopes = None if weights or not ctx.needs_input_grad[0] else torch.empty_like(hidden)
        for start in range(0, len(hidden), chunk):
            piece = slice(start, start + chunk)
            with torch.set_grad_enabled(slopes is not None):
                rows = hidden[piece].detach().requires_grad_(slopes is not None)
                logits = head(rows)
            log_shares = F.log_softmax(logits.detach().float(), dim=-1)
            targets = labels[piece, None]
            totals.index_add_(0, owners[piece], log_shares.gather(1, targets)[:, 0])
            if slopes is not None:
                slopes[piece] = torch.autograd.grad(logits, rows, _slope(log_shares, targets).to(logits.dtype))[0]
            del rows, logits, log_shares  # or the next chunk's logits would be made beside this one's
        ctx.head, ctx.chunk, ctx.relearns = head, chunk, slopes is None
        ctx.autocast = _autocast_state(hidden.device)
        ctx.save_for_backward(hidden if slopes is None else slopes, labels, owners, *weights)
        return totals

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kept, labels, owners, *weights = ctx.saved_tensors
        factors = grad_outputs[0].index_select(0, owners)[:, None]
        if not ctx.relearns:
            # In place, as the slopes are used once; and by a float32, as fp16's loss scale may be more than fp16 holds.
            return (kept.mul_(factors), None, None, None, None, None)
        grad_hidden = torch.empty_like(kept)
        grad_weights: list[torch.Tensor] = []
        for start in range(0, len(kept), ctx.chunk):
            piece = slice(start, start + ctx.chunk)
            with torch.enable_grad(), torch.autocast(**ctx.autocast):
                rows = kept[piece].detach().requires_grad_()
                logits = ctx.head(rows)
            slope = _slope(F.log_softmax(logits.detach().float(), dim=-1), labels[piece, None]).mul_(factors[piece])
            gradients = torch.autograd.grad(logits, (rows, *weights), slope.to(logits.dtype))
            grad_hidden[piece] = gradients[0]
            if grad_weights:
                for sum_, gradient in zip(grad_weights, gradients[1:], strict=True):
                    sum_ += gradient
                del gradient
            else:
                grad_weights = list(gradients[1:])
            del rows, logits, slope, gradients
        return (grad_hidden, None, None, None, None, None, *grad_weights)


def log_probabilities(
    hidden: torch.Tensor,
    labels: torch.Tensor,
    owners: torch.Tensor,
    count: int,
    head: Head,
    head_weights: Sequence[torch.Tensor],
    *,
    chunk: int,
) -> torch.Tensor:
    """Summed log-probability of the labels of each of `count` sequences, float32 (count,), with gradients.

    hidden: (targets, hidden size), the states that predict; labels: (targets,); owners: (targets,), the sequence that
    each target belongs to; head: states -> logits; head_weights: the head's own parameters that learn; chunk: targets
    whose logits exist at once.
    """
    return _LogProbabilities.apply(hidden, labels, owners, count, head, chunk, *head_weights)


def _slope(log_shares: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The gradient of the labels' log-probability by the logits: one at the label, less the softmax. In place."""
    return log_shares.exp_().neg_().scatter_add_(1, targets, log_shares.new_ones(targets.shape))


def _autocast_state(device: torch.device) -> dict[str, Any]:
    """How to make the backward, which autograd runs outside of it, compute as the forward did."""
    kind = device.type
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return {"device_type": kind, "dtype": dtype, "enabled": enabled, "cache_enabled": False}
