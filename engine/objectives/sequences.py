"""What the objectives over whole answers share: batches that know which answer a target belongs to, and the
log-probabilities that the untouched base gives to the answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from engine.data.examples import Example, Examples
from engine.objectives.base import Autocast, Keep, Objective, of_units
from engine.objectives.references import (
    DIGEST_BYTES,
    REFERENCES_NAME,
    References,
    read_references,
    references_bytes,
    write_references,
)
from engine.train.batches import MicroBatch, evaluation_batches
from engine.train.documents import target_owners
from engine.train.forward import Forward


@dataclass(frozen=True, kw_only=True)
class SequenceBatch(MicroBatch):
    """A micro-batch whose documents are answers to weigh against each other."""

    rows: tuple[int, ...]
    """Which row each unit is."""
    owners: torch.Tensor
    """(target tokens,): the document of each."""
    answer_tokens: torch.Tensor
    """float32 (documents,): the target tokens of each."""
    references: torch.Tensor
    """float32 (units, 2): log-probabilities by the untouched base; empty where they are not known or not needed."""
    companions: tuple[SequenceBatch, ...] = ()
    """Sequences that go through the model beside these, without gradients, no more slots at once than these have."""


AnswerBatch = TypeVar("AnswerBatch", bound=SequenceBatch)


class SequenceObjective(Objective[AnswerBatch]):
    """An objective over the log-probabilities of whole answers."""

    needs_references: ClassVar[bool] = False
    """Whether the loss compares with the untouched base."""

    def __init__(self, forward: Forward, train: Examples, held_out: Examples):
        super().__init__(forward)
        self.train, self.held_out = train, held_out
        self.references: References | None = None

    def answers(self, examples: Sequence[Example]) -> SequenceBatch:
        """One micro-batch of `examples`, with their references where these are known."""
        rows = tuple(example.row for example in examples)
        batch = self.forward.collate(examples)
        owners = target_owners(examples)
        tokens = np.bincount(owners, minlength=len(batch.document_lengths))
        known = self.references.of(rows) if self.references is not None else np.empty((0, 2), dtype=np.float32)
        return of_units(
            SequenceBatch,
            batch,
            len(examples),
            rows=rows,
            owners=torch.from_numpy(owners),
            answer_tokens=torch.from_numpy(tokens.astype(np.float32)),
            references=torch.from_numpy(known),
        )

    def log_probabilities(self, batch: SequenceBatch) -> torch.Tensor:
        """Of each document's answer, float32 (documents,)."""
        return self.forward.log_probabilities(batch, batch.owners, len(batch.document_lengths))

    def base_values(self, batch: AnswerBatch) -> torch.Tensor:
        """What `references` keep of a batch's units, (units, 2)."""
        return self.log_probabilities(batch).view(-1, 2)

    def refer(
        self,
        folder: Path,
        *,
        token_budget: int,
        device: torch.device,
        autocast: Autocast,
        progress: Callable[[int, int], None],
        keep: Keep,
    ) -> None:
        """Take the references of all rows from `folder`, or, where they are not there, damaged or of other rows, make
        them with the model as it is now and keep them there. Waits for the device. Raises what `keep` and `progress`
        (batches done, of how many) raise."""
        if not self.needs_references:
            return
        path = folder / REFERENCES_NAME
        rows, digest = _rows_and_digest((self.train, self.held_out))
        if (values := read_references(path, rows, digest)) is None:
            # Known by row already, for objectives that look other rows up.
            self.references = References(rows, np.zeros((len(rows), 2), dtype=np.float32))
            values = self._make(rows, token_budget, device, autocast, progress)
            keep(references_bytes(len(rows)), partial(write_references, path, rows, values, digest))
        self.references = References(rows, values)

    @torch.no_grad()
    def _make(
        self,
        rows: NDArray[np.int64],
        token_budget: int,
        device: torch.device,
        autocast: Autocast,
        progress: Callable[[int, int], None],
    ) -> NDArray[np.float32]:
        assert self.references is not None
        values = np.empty((len(rows), 2), dtype=np.float32)
        padded = self.forward.padded
        parts = (self.train, self.held_out)
        groups = [evaluation_batches(part, token_budget, padded=padded, collate=self.collate) for part in parts]
        total, done = sum(len(group) for group in groups), 0
        was_training = self.forward.model.training
        self.forward.model.eval()
        try:
            for group in groups:
                for each in group:
                    batch = cast(AnswerBatch, each.to(device))  # as `collate` makes them
                    with autocast():
                        found = self.base_values(batch)
                    values[self.references.positions(batch.rows)] = found.cpu().numpy()
                    done += 1
                    progress(done, total)
        finally:
            self.forward.model.train(was_training)
        return values


def _rows_and_digest(parts: Sequence[Examples]) -> tuple[NDArray[np.int64], bytes]:
    """The row of every example, and a digest of all their tokens, in order."""
    rows, digest = [], hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        for example in part:
            rows.append(example.row)
            digest.update(example.input_ids.tobytes())
            digest.update(np.packbits(example.trained).tobytes())
    return np.array(rows, dtype=np.int64), digest.digest()
