"""What the objectives over whole answers share: batches that know which answer a target belongs to, and the
log-probabilities that the untouched base gives to the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from engine.data.examples import Example, Examples
from engine.objectives.base import Autocast, Objective, of_units
from engine.run.directory import sync
from engine.train.batches import MicroBatch, evaluation_batches
from engine.train.documents import target_owners
from engine.train.forward import Forward
from engine.train.tensor_file import read_tensors, write_tensors
from profiles.problem import Problem

REFERENCES_NAME = "references.safetensors"


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
    companion: SequenceBatch | None = None
    """Sequences that go through the model beside these, without gradients."""


AnswerBatch = TypeVar("AnswerBatch", bound=SequenceBatch)


class References:
    """Log-probabilities of answers under the model as it was before training, two for every row."""

    def __init__(self, rows: NDArray[np.int64], values: NDArray[np.float32]):
        """rows: (n,), each once; values: (n, 2)."""
        self.rows, self.values = rows, values
        self._order = np.argsort(rows)
        self._sorted = rows[self._order]

    def of(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """(rows, 2), for rows that are all known."""
        return self.values[self.positions(rows)]

    def positions(self, rows: Sequence[int]) -> NDArray[np.intp]:
        """Where `rows` stand among those known."""
        places = np.searchsorted(self._sorted, rows)
        assert np.array_equal(self._sorted[places], rows), "a row without a reference"
        return self._order[places]


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
    ) -> None:
        """Take the references of all rows from `folder`, or, where they are not there or are of other rows, make them
        with the model as it is now and keep them there. Waits for the device. Raises Problem when they cannot be
        written, and whatever `progress` (batches done, of how many) raises."""
        if not self.needs_references:
            return
        path = folder / REFERENCES_NAME
        rows = np.array([example.row for part in (self.train, self.held_out) for example in part], dtype=np.int64)
        lengths = np.concatenate([self.train.lengths, self.held_out.lengths]).astype(np.int64)
        if (values := _read(path, rows, lengths)) is None:
            # Known by row already, for objectives that look other rows up.
            self.references = References(rows, np.zeros((len(rows), 2), dtype=np.float32))
            values = self._make(rows, token_budget, device, autocast, progress)
            _write(path, {"rows": rows, "lengths": lengths, "values": values})
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


def _read(path: Path, rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float32] | None:
    if not path.is_file():
        return None
    kept = {name: tensor.numpy() for name, tensor in read_tensors(path)}
    same = np.array_equal(kept["rows"], rows) and np.array_equal(kept["lengths"], lengths)
    return kept["values"] if same else None


def _write(path: Path, arrays: dict[str, NDArray]) -> None:
    staging = path.with_name(f".{path.name}")
    try:
        staging.unlink(missing_ok=True)
        write_tensors(staging, {name: torch.from_numpy(array) for name, array in arrays.items()})
        sync(staging)
        staging.rename(path)
        sync(path.parent)
    except OSError as error:
        raise Problem(
            str(path), f"cannot be written: {error.strerror}", "Free disk space there and resume the run."
        ) from error
