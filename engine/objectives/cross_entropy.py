"""Cross-entropy that never holds the logits.

The output head is applied to the positions that carry loss only, a chunk of them at a time, and the chunk's gradient
is computed at once, in the forward: no logits survive a chunk, nothing is recomputed, and the peak is one chunk's
2 x vocabulary x 4 bytes per target instead of the whole batch's. (The idea of Liger's fused linear cross-entropy, with
any head: quantised, adapted, soft-capped.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

Head = Callable[[torch.Tensor], torch.Tensor]


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        labels: torch.Tensor,
        head: Head,
        chunk: int,
        scale: float,
        each: torch.Tensor | None,
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        grad_hidden = torch.empty_like(hidden)
        grad_weights: list[torch.Tensor] = []
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), chunk):
            piece = slice(start, start + chunk)
            with torch.enable_grad():
                rows = hidden[piece].detach().requires_grad_()
                logits = head(rows)
            log_shares = F.log_softmax(logits.detach().float(), dim=-1)
            targets = labels[piece, None]
            losses = -log_shares.gather(1, targets)
            total += losses.sum()
            if each is not None:
                each[piece] = losses[:, 0]
            # The gradient of cross-entropy by the logits is the softmax, less one at the label.
            slope = log_shares.exp_().scatter_add_(1, targets, log_shares.new_full(targets.shape, -1.0)).mul_(scale)
            gradients = torch.autograd.grad(logits, (rows, *weights), slope.to(logits.dtype))
            grad_hidden[piece] = gradients[0]
            if grad_weights:
                for sum_, gradient in zip(grad_weights, gradients[1:], strict=True):
                    sum_ += gradient
                del gradient  # as large as the head, and else still there beside the next chunk's
            else:
                grad_weights = list(gradients[1:])
            # Or the next chunk's logits would be made beside this one's.
            del rows, logits, log_shares, slope, gradients, losses
        ctx.save_for_backward(grad_hidden, *grad_weights)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad_loss,) = grad_outputs
        # In place: the saved gradients are used once, here. The factor is 1 but for fp16's loss scale.
        hidden, *weights = (gradient.mul_(grad_loss) for gradient in ctx.saved_tensors)
        return (hidden, None, None, None, None, None, *weights)


def chunked_loss(
    hidden: torch.Tensor,
    labels: torch.Tensor,
    head: Head,
    head_weights: Sequence[torch.Tensor],
    *,
    chunk: int,
    scale: float,
    each: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum of the cross-entropies of `labels`, times `scale`, as a float32 scalar with gradients.

    hidden: (targets, hidden size), the states that predict; labels: (targets,); head: states -> logits;
    head_weights: the head's own parameters that learn (empty when it is frozen); chunk: targets at once;
    each: float32 (targets,), filled with every target's own cross-entropy.
    """
    return _ChunkedCrossEntropy.apply(hidden, labels, head, chunk, scale, each, *head_weights)


@torch.no_grad()
def summed_loss(
    hidden: torch.Tensor, labels: torch.Tensor, head: Head, *, chunk: int, each: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum of the cross-entropies of `labels` as a float32 scalar without gradients; arguments as in chunked_loss."""
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for start in range(0, len(hidden), chunk):
        piece = slice(start, start + chunk)
        losses = F.cross_entropy(head(hidden[piece]).float(), labels[piece], reduction="none")
        total += losses.sum()
        if each is not None:
            each[piece] = losses
    return total
