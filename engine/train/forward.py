"""One way through the model for training and for held-out rows: hidden states of the documents, then the head on the
positions that an objective asks for.

It relies on two things a model could do otherwise: that attention hands `document_lengths` on, and that logits are the
head applied to the last hidden state. Both are checked on real rows against the model's own plain forward before
training (`agree_with_plain_forward`); a model that differs trains in the padded layout, or is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from engine.data.examples import Example, Examples
from engine.objectives.cross_entropy import chunked_loss, summed_loss
from engine.objectives.log_probabilities import log_probabilities
from engine.run.endings.exhaustion import shortage
from engine.train.batches import MicroBatch, collate
from engine.train.document_attention import DOCUMENT_ATTENTION, VARLEN_ATTENTION, register, varlen_available
from engine.train.documents import document_ids, document_offsets, end_position
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
        self.decoder = self.base.base_model  # the model itself where it has no head
        self.loss_chunk = loss_chunk
        self.compute = compute
        self.predicts_tokens = self.base.get_output_embeddings() is not None
        self.head_module = self.base.get_output_embeddings() or getattr(self.base, "score", None)
        parameters = self.head_module.parameters() if self.head_module is not None else ()
        self.head_weights = [weight for weight in parameters if weight.requires_grad]
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

    def states(self, batch: MicroBatch) -> torch.Tensor:
        """The last hidden state of every slot of the batch, padding too: (slots, hidden size)."""
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
        return states.flatten(0, -2)

    def loss(self, batch: MicroBatch, scale: float, each: torch.Tensor | None = None) -> torch.Tensor:
        """Sum of the targets' cross-entropies times `scale`, a float32 scalar with gradients. `each`, float32
        (targets,), is filled with every target's own."""
        return chunked_loss(
            self._predicting_states(batch),
            batch.labels,
            self.head,
            self.head_weights,
            chunk=self.loss_chunk,
            scale=scale,
            each=each,
        )

    def summed_loss(self, batch: MicroBatch, each: torch.Tensor | None = None) -> torch.Tensor:
        """Sum of the targets' cross-entropies, a float32 scalar without gradients; `each` as in `loss`."""
        with torch.no_grad():
            states = self._predicting_states(batch)
            return summed_loss(states, batch.labels, self.head, chunk=self.loss_chunk, each=each)

    def log_probabilities(self, batch: MicroBatch, owners: torch.Tensor, count: int) -> torch.Tensor:
        """The log-probability of each of `count` documents' targets together, float32 (count,), with gradients unless
        they are off. owners: (targets,), the document of each target."""
        return log_probabilities(
            self._predicting_states(batch),
            batch.labels,
            owners,
            count,
            self.head,
            self.head_weights,
            chunk=self.loss_chunk,
        )

    def head(self, states: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states, with the scalings and the cap that some families put on them."""
        config = self.base.config.get_text_config()
        assert self.head_module is not None
        logits = self.head_module(states)
        if not self.predicts_tokens:
            return logits
        if scaling := getattr(config, "logits_scaling", None):  # Granite divides
            logits = logits / scaling
        if scaling := getattr(config, "logit_scale", None):  # Cohere multiplies
            logits = logits * scaling
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits = torch.tanh(logits / cap) * cap
        return logits

    def settle_layout(self, examples: Examples) -> None:
        """Check this forward on the two shortest examples, and fall back to the padded layout where documents disagree.

        Raises Problem when even that differs from the model's own forward, since training would then go wrong.
        """
        shortest = np.argpartition(examples.lengths, min(1, len(examples) - 1))[:2]
        probe = [examples[int(index)] for index in shortest]
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
        """Whether what is made of `examples` together is what the model's own forward makes of each document alone:
        their loss, or, where no tokens are predicted, what is read at their ends."""
        was_training = self.model.training
        self.model.eval()
        device = next(self.base.parameters()).device
        batch = self.collate(examples).to(device)
        try:
            if self.predicts_tokens:
                ours = (self.summed_loss(batch) / batch.targets)[None]
            else:
                ours = self._at_ends(batch, examples)
        except (TypeError, RuntimeError, ValueError) as error:
            if shortage(error) is not None:
                raise
            # A model that does not hand `document_lengths` on, or shapes its states otherwise.
            ours = torch.full((1,), float("nan"))
        if self.predicts_tokens:
            plain = torch.tensor([sum(self.plain_loss(example) for example in examples) / batch.targets])
        else:
            plain = torch.stack([self._plain_at_end(ids) for ids in document_ids(examples)])
        self.model.train(was_training)
        difference, size = (ours.cpu() - plain).abs().max(), plain.abs().max()
        return float(difference) <= TOLERANCE[self.compute] * max(1.0, float(size))

    @torch.no_grad()
    def plain_loss(self, example: Example) -> float:
        """Sum of one example's cross-entropies by the model's own forward, all logits at once."""
        trained = np.split(example.trained, np.cumsum(example.parts)[:-1] if example.parts else [])
        total = 0.0
        for ids, learnt in zip(document_ids([example]), trained, strict=True):
            logits = self._plain_forward(self.model, ids).logits[0].float()
            targets = torch.from_numpy(ids[1:].astype(np.int64)).to(logits.device)
            chosen = torch.from_numpy(learnt[1:]).to(logits.device)
            total += float(F.cross_entropy(logits[:-1][chosen], targets[chosen], reduction="sum"))
        return total

    @torch.no_grad()
    def _at_ends(self, batch: MicroBatch, examples: Sequence[Example]) -> torch.Tensor:
        padding = self.base.config.get_text_config().pad_token_id if self.head_module is not None else None
        ends = [end_position(ids, padding) for ids in document_ids(examples)]
        offsets = document_offsets(batch.document_lengths, padded=self.padded)
        states = self.states(batch)[torch.from_numpy(offsets + ends).to(batch.input_ids.device)]
        return (states if self.head_module is None else self.head(states)).float()

    @torch.no_grad()
    def _plain_at_end(self, ids: np.ndarray) -> torch.Tensor:
        if self.head_module is None:
            return self._plain_forward(self.decoder, ids).last_hidden_state[0, -1].float().cpu()
        return self._plain_forward(self.model, ids).logits[0].float().cpu()

    def _plain_forward(self, model: Any, ids: np.ndarray) -> Any:
        device = next(self.base.parameters()).device
        self.use_plain_attention()
        try:
            return model(input_ids=torch.from_numpy(ids.astype(np.int64))[None].to(device), use_cache=False)
        finally:
            self.use_training_attention()

    def _predicting_states(self, batch: MicroBatch) -> torch.Tensor:
        return self.states(batch).index_select(0, batch.sources)

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
