"""From tokenised examples to the micro-batches of each optimizer step, as a pure function of the seed and the step.

Nothing about the order is kept between steps, so a resumed run needs only its step number to go on with exactly the
rows an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from engine.data.packing import pack
from engine.data.tokenise import Example
from engine.train.document_attention import document_starts


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once.

    Documents layout: input_ids and position_ids are (1, tokens), positions restart in every document, attention_mask
    is None. Padded layout: (documents, longest), padded on the right, with attention_mask.
    `sources` indexes the flattened hidden states that predict `labels`; both are (targets,).
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    document_lengths: tuple[int, ...]
    document_starts: torch.Tensor
    sources: torch.Tensor
    labels: torch.Tensor

    @property
    def tokens(self) -> int:
        """Tokens of the documents, padding not counted."""
        return sum(self.document_lengths)

    @property
    def targets(self) -> int:
        """Tokens that carry loss."""
        return len(self.labels)

    def to(self, device: torch.device) -> MicroBatch:
        """The batch on `device`, copied without waiting where the memory allows it."""
        if device.type == "cpu":
            return self

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        mask = None if self.attention_mask is None else moved(self.attention_mask)
        return MicroBatch(
            moved(self.input_ids),
            moved(self.position_ids),
            mask,
            self.document_lengths,
            moved(self.document_starts),
            moved(self.sources),
            moved(self.labels),
        )


def collate(examples: Sequence[Example], *, padded: bool) -> MicroBatch:
    """One micro-batch of `examples`, in the documents layout or `padded`."""
    lengths = tuple(len(example.input_ids) for example in examples)
    width = max(lengths)
    if padded:
        shape = (len(examples), width)
        offsets = [row * width for row in range(len(examples))]
    else:
        shape = (1, sum(lengths))
        offsets = list(np.cumsum((0, *lengths[:-1])))
    ids = np.zeros(shape, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    sources, labels = [], []
    for offset, example in zip(offsets, examples, strict=True):
        span = slice(offset, offset + len(example.input_ids))
        ids.reshape(-1)[span] = example.input_ids
        positions.reshape(-1)[span] = np.arange(len(example.input_ids))
        mask.reshape(-1)[span] = 1
        targets = np.flatnonzero(example.trained)
        sources.append(offset + targets - 1)
        labels.append(example.input_ids[targets])
    return MicroBatch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        attention_mask=torch.from_numpy(mask) if padded else None,
        document_lengths=lengths,
        document_starts=document_starts(lengths),
        sources=torch.from_numpy(np.concatenate(sources).astype(np.int64)),
        labels=torch.from_numpy(np.concatenate(labels).astype(np.int64)),
    )


class StepPlan:
    """Which examples each optimizer step learns from.

    A row is a pack of examples of up to `sequence_length` tokens, or one example where packing is off. A step takes
    micro_batch x gradient_accumulation rows; the last step of an epoch takes what is left.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        sequence_length: int,
        packing: bool,
        micro_batch: int,
        gradient_accumulation: int,
        seed: int,
    ):
        assert examples, "a run without training rows is refused when its data is read"
        self.examples = examples
        self.sequence_length, self.packing, self.seed = sequence_length, packing, seed
        self.micro_batch = micro_batch
        self.rows_per_step = micro_batch * gradient_accumulation
        self._lengths = np.array([len(example.input_ids) for example in examples])
        # First-fit-decreasing fills the same number of rows whatever the order of equal lengths: one count for all.
        self.rows_per_epoch = len(self._rows(0))
        self.steps_per_epoch = math.ceil(self.rows_per_epoch / self.rows_per_step)
        # The rows of an epoch take seconds to pack for millions of examples and are asked for step by step.
        self._cached_rows = lru_cache(maxsize=1)(self._rows)

    def total_steps(self, epochs: float, max_steps: int | None) -> int:
        """Optimizer steps of the whole run."""
        return max_steps or math.ceil(epochs * self.steps_per_epoch)

    def epoch_at(self, step: int) -> float:
        """Passes over the data after `step` steps."""
        return step / self.steps_per_epoch

    def micro_batches(self, step: int) -> list[list[Example]]:
        """The examples of optimizer step `step` (from 0), one list a micro-batch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.rows_per_step
        rows = self._cached_rows(epoch)[start : start + self.rows_per_step]
        return [
            [self.examples[index] for row in rows[first : first + self.micro_batch] for index in row]
            for first in range(0, len(rows), self.micro_batch)
        ]

    def heaviest(self, *, padded: bool) -> list[Example]:
        """The examples of a micro-batch that has as many tokens as any, padding counted where rows are `padded`."""
        if not self.packing:
            return [self.examples[index] for index in np.argsort(-self._lengths, kind="stable")[: self.micro_batch]]
        rows = self._cached_rows(0)
        groups = [rows[first : first + self.micro_batch] for first in range(0, len(rows), self.micro_batch)]
        if not padded:
            # The fullest rows, whether or not they meet: in another epoch they may.
            groups = [sorted(rows, key=lambda row: -self._lengths[row].sum())[: self.micro_batch]]
        weights = [sum(map(len, group)) * max(self._lengths[row].max() for row in group) for group in groups]
        return [self.examples[index] for row in groups[int(np.argmax(weights))] for index in row]

    @property
    def packing_efficiency(self) -> float:
        """Share of the rows' slots that hold a token; 1 where rows are not packed, since nothing is padded."""
        if not self.packing:
            return 1.0
        return float(self._lengths.sum() / (self.rows_per_epoch * self.sequence_length))

    def _rows(self, epoch: int) -> list[np.ndarray]:
        seed = (self.seed * 1_000_003 + epoch) % 2**32
        if self.packing:
            return pack(self._lengths, self.sequence_length, seed)
        order = np.random.default_rng(seed).permutation(len(self.examples))
        return [order[index : index + 1] for index in range(len(order))]


def evaluation_batches(examples: Sequence[Example], token_budget: int, *, padded: bool) -> list[MicroBatch]:
    """All of `examples`, the longest first, in batches of at most `token_budget` tokens (one example may exceed it)."""
    batches: list[list[Example]] = []
    for example in sorted(examples, key=lambda each: -len(each.input_ids)):
        length = len(example.input_ids)
        width = len(batches[-1][0].input_ids) if batches else 0
        held = sum(len(each.input_ids) for each in batches[-1]) if batches else 0
        size = width * (len(batches[-1]) + 1) if padded and batches else held + length
        if batches and size <= token_budget:
            batches[-1].append(example)
        else:
            batches.append([example])
    return [collate(batch, padded=padded) for batch in batches]
