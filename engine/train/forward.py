"""One way through the model for training and for held-out loss: hidden states of the documents, then the head on
the positions that carry loss.

It relies on two things a model could do otherwise: that attention hands `document_lengths` on, and that logits are the
output head applied to the last hidden state. Both are checked on real rows against the model's own plain forward
before training (`agree_with_plain_forward`); a model that differs trains in the padded layout, or is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from engine.data.tokenise import Example
from engine.objectives.next_token import chunked_loss, summed_loss
from engine.run.exhaustion import shortage
from engine.train.batches import MicroBatch, collate
from engine.train.document_attention import DOCUMENT_ATTENTION, VARLEN_ATTENTION, register, varlen_available
from profiles.problem import Problem

# Layers that carry a state along the row (state-space and linear attention) would leak it between documents.
ISOLATED_LAYERS = frozenset({"full_attention", "sliding_attention"})

# Agreement asked of two float32 ways to the same loss; half precision is given its own rounding.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}


class Forward:
    """Loss of micro-batches under one layout (`padded`) and one attention (`attention`, with its reason)."""

    def __init__(self, model: Any, *, attention: str, compute: torch.dtype, loss_chunk: int):
        self.model = model
        self.base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.decoder = getattr(self.base, self.base.base_model_prefix)
        self.loss_chunk = loss_chunk
        self.compute = compute
        self.head_module = self.base.get_output_embeddings()
        self.head_weights = [weight for weight in self.head_module.parameters() if weight.requires_grad]
        self.padded, self.attention, self.reason = self._choose(attention)
        self.use_training_attention()

    @property
    def leaves_out_dropout(self) -> bool:
        """Whether the model's config asks for dropout in the attention, which the packed layout's has not."""
        config = self.base.config.get_text_config()
        asked = getattr(config, "attention_dropout", None) or getattr(config, "attn_pdrop", None)
        return bool(asked) and not self.padded

    def use_training_attention(self) -> None:
        """Switch the model to the attention that batches are made for (generation switches it to sdpa)."""
        self.base.set_attn_implementation(self.attention)

    def use_plain_attention(self) -> None:
        """Switch the model to the attention that its own forward and generate expect."""
        self.base.set_attn_implementation("eager" if self.attention == "eager" else "sdpa")

    def collate(self, examples: Sequence[Example]) -> MicroBatch:
        return collate(examples, padded=self.padded)

    def loss(self, batch: MicroBatch, scale: float) -> torch.Tensor:
        """Sum of the targets' cross-entropies times `scale`, a float32 scalar with gradients."""
        return chunked_loss(
            self._predicting_states(batch),
            batch.labels,
            self.head,
            self.head_weights,
            chunk=self.loss_chunk,
            scale=scale,
        )

    def summed_loss(self, batch: MicroBatch) -> torch.Tensor:
        """Sum of the targets' cross-entropies, a float32 scalar without gradients."""
        with torch.no_grad():
            return summed_loss(self._predicting_states(batch), batch.labels, self.head, chunk=self.loss_chunk)

    def head(self, states: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states, with the scalings and the cap that some families put on them."""
        config = self.base.config.get_text_config()
        logits = self.head_module(states)
        if scaling := getattr(config, "logits_scaling", None):  # Granite divides
            logits = logits / scaling
        if scaling := getattr(config, "logit_scale", None):  # Cohere multiplies
            logits = logits * scaling
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits = torch.tanh(logits / cap) * cap
        return logits

    def settle_layout(self, examples: Sequence[Example]) -> None:
        """Check this forward on two real examples, and fall back to the padded layout where documents disagree.

        Raises Problem when even that differs from the model's own forward, since training would then go wrong.
        """
        probe = sorted(examples, key=lambda example: len(example.input_ids))[:2]
        if not self.padded and not self.agree_with_plain_forward(probe):
            self.padded, self.attention = True, "sdpa"
            self.reason = "padded rows: this model does not keep documents in one row apart"
            self.use_training_attention()
        if self.padded and not self.agree_with_plain_forward(probe):
            raise Problem(
                f"model {type(self.base).__name__}",
                "computes its logits in a way finetui does not know: a trial loss differs from the model's own",
                "Choose a model of another architecture; this one would be trained wrongly.",
            )

    def agree_with_plain_forward(self, examples: Sequence[Example]) -> bool:
        """Whether the loss of `examples` together is that of the model's own forward on each alone."""
        was_training = self.model.training
        self.model.eval()
        device = next(self.base.parameters()).device
        batch = self.collate(examples).to(device)
        try:
            ours = float(self.summed_loss(batch)) / batch.targets
        except (TypeError, RuntimeError, ValueError) as error:
            if shortage(error) is not None:
                raise
            # A model that does not hand `document_lengths` on, or shapes its states otherwise.
            ours = float("nan")
        plain = sum(self.plain_loss(example) for example in examples) / batch.targets
        self.model.train(was_training)
        return abs(ours - plain) <= TOLERANCE[self.compute] * max(1.0, abs(plain))

    @torch.no_grad()
    def plain_loss(self, example: Example) -> float:
        """Sum of one example's cross-entropies by the model's own forward, all logits at once."""
        device = next(self.base.parameters()).device
        ids = torch.from_numpy(example.input_ids).long().to(device)
        trained = torch.from_numpy(example.trained).to(device)
        self.use_plain_attention()
        try:
            logits = self.model(input_ids=ids[None], use_cache=False).logits[0].float()
        finally:
            self.use_training_attention()
        return float(F.cross_entropy(logits[:-1][trained[1:]], ids[1:][trained[1:]], reduction="sum"))

    def _predicting_states(self, batch: MicroBatch) -> torch.Tensor:
        packed = {} if self.padded else {"document_lengths": batch.document_lengths}
        if self.attention == VARLEN_ATTENTION:
            packed["document_starts"] = batch.document_starts
        states = self.decoder(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=batch.attention_mask,
            use_cache=False,
            **packed,
        ).last_hidden_state
        return states.flatten(0, -2).index_select(0, batch.sources)

    def _choose(self, requested: str) -> tuple[bool, str, str]:
        """(padded, attention implementation, reason) for the spec's `attention`."""
        register()
        config = self.base.config.get_text_config()
        if requested == "eager":
            return True, "eager", "eager attention, asked for: padded rows"
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if not getattr(self.base, "_supports_attention_backend", False):
            return True, "sdpa", f"padded rows: {type(self.base).__name__} has its own attention code"
        if not kinds <= ISOLATED_LAYERS:
            others = ", ".join(sorted(kinds - ISOLATED_LAYERS))
            return True, "sdpa", f"padded rows: {others} layers carry state between documents"
        if getattr(config, "attn_logit_softcapping", None):
            return True, "eager", "eager attention with padded rows: this family caps its attention scores"
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        if requested != "sdpa" and varlen_available(self.compute, head_dim):
            return False, VARLEN_ATTENTION, "varlen flash attention: one call for all documents of a row"
        if requested == "varlen":
            raise Problem(
                "model.attention",
                "varlen needs a GPU of compute capability 8.0 or more and half precision",
                'Use "auto".',
            )
        return False, DOCUMENT_ATTENTION, "one fused attention call per document"
