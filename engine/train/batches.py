"""From examples to the tensors that go through the model at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray

from engine.data.examples import Example, Examples
from engine.train.document_attention import document_starts


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once.

    Documents layout: input_ids and position_ids are (1, tokens), positions restart in every document, attention_mask
    is None. Padded layout: (documents, longest), padded on the right, with attention_mask.
    `sources` indexes the flattened hidden states that predict `labels`; both are (target tokens,).
    An example of several parts (a preference pair) is as many documents.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    document_lengths: tuple[int, ...]
    document_starts: torch.Tensor
    sources: torch.Tensor
    labels: torch.Tensor
    example_sources: tuple[int, ...]
    """For each example, the data source that it is from."""
    example_targets: tuple[int, ...]
    """For each example, how many of its tokens carry loss."""
    units: int = 0
    """What the loss is a mean over, where it is not target tokens but examples; 0 for target tokens."""

    @property
    def tokens(self) -> int:
        """Tokens of the documents, padding not counted."""
        return sum(self.document_lengths)

    @property
    def target_tokens(self) -> int:
        """Tokens that carry loss."""
        return len(self.labels)

    @property
    def targets(self) -> int:
        """Units that the loss is a mean over."""
        return self.units or len(self.labels)

    @property
    def unit_sources(self) -> NDArray[np.int64]:
        """For each unit, the data source that it is from, (targets,)."""
        sources = np.asarray(self.example_sources, dtype=np.int64)
        return sources if self.units else np.repeat(sources, self.example_targets)

    def to(self, device: torch.device) -> Self:
        """The batch on `device`, copied without waiting where the memory allows it."""
        if device.type == "cpu":
            return self

        def moved(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value if value.device.type == device.type else value.pin_memory().to(device, non_blocking=True)
            if isinstance(value, MicroBatch):
                return value.to(device)
            return tuple(map(moved, value)) if isinstance(value, tuple) else value

        return replace(self, **{each.name: moved(getattr(self, each.name)) for each in fields(self)})


def collate(examples: Sequence[Example], *, padded: bool) -> MicroBatch:
    """One micro-batch of `examples`, in the documents layout or `padded`."""
    lengths = tuple(length for example in examples for length in example.parts or (len(example.input_ids),))
    width = max(lengths)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    shape = (len(lengths), width) if padded else (1, int(ends[-1]))
    positions = np.arange(ends[-1]) - np.repeat(starts, lengths)
    # Of each token among the flattened slots.
    places = positions + np.repeat(np.arange(len(lengths)) * width if padded else starts, lengths)
    tokens = np.concatenate([example.input_ids for example in examples])
    targets = np.flatnonzero(np.concatenate([example.trained for example in examples]))

    def laid_out(values: NDArray[np.integer]) -> torch.Tensor:
        slots = np.zeros(shape, dtype=np.int64)
        slots.reshape(-1)[places] = values
        return torch.from_numpy(slots)

    return MicroBatch(
        input_ids=laid_out(tokens),
        position_ids=laid_out(positions),
        attention_mask=laid_out(np.ones_like(positions)) if padded else None,
        document_lengths=lengths,
        document_starts=document_starts(lengths),
        sources=torch.from_numpy(places[targets] - 1),
        labels=torch.from_numpy(tokens[targets].astype(np.int64)),
        example_sources=tuple(example.source for example in examples),
        example_targets=tuple(int(np.count_nonzero(example.trained)) for example in examples),
    )


class EvaluationBatches(Sequence[MicroBatch]):
    """Batches of examples, made when they are asked for."""

    def __init__(
        self,
        examples: Examples,
        bounds: Sequence[int],
        widest: int | None,
        collate: Callable[[Sequence[Example]], MicroBatch],
    ):
        """Batch b holds the examples from bounds[b] to bounds[b + 1]; `widest` is the one of most slots."""
        self._examples, self._bounds, self._widest, self._collate = examples, bounds, widest, collate

    def widest(self) -> MicroBatch | None:
        """The batch of most slots; None when there is none."""
        return None if self._widest is None else self[self._widest]

    def __len__(self) -> int:
        return len(self._bounds) - 1

    @overload
    def __getitem__(self, batch: int) -> MicroBatch: ...
    @overload
    def __getitem__(self, batch: slice) -> list[MicroBatch]: ...
    def __getitem__(self, batch: int | slice) -> MicroBatch | list[MicroBatch]:
        positions = range(len(self))[batch]
        if isinstance(positions, range):
            return [self[each] for each in positions]
        return self._collate(list(self._examples[self._bounds[positions] : self._bounds[positions + 1]]))


def evaluation_batches(
    examples: Examples,
    token_budget: int,
    *,
    padded: bool,
    collate: Callable[[Sequence[Example]], MicroBatch],
) -> EvaluationBatches:
    """All of `examples`, the longest first, in batches of at most `token_budget` tokens (one example may exceed it);
    padding counts where rows are `padded`."""
    order = np.argsort(-examples.lengths, kind="stable")
    bounds, slots, held, width = [0], [], 0, 0
    for position, length in enumerate(examples.lengths[order].tolist()):
        grown = width * (position + 1 - bounds[-1]) if padded else held + length
        if position > bounds[-1] and grown > token_budget:
            bounds.append(position)
            slots.append(held)
        if position == bounds[-1]:  # a batch's first example is its longest
            width = grown = length
        held = grown
    if len(order):
        bounds.append(len(order))
        slots.append(held)
    widest = int(np.argmax(slots)) if slots else None
    return EvaluationBatches(examples[order], bounds, widest, collate)
