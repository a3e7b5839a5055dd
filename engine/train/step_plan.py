"""Which examples each optimizer step learns from, as a pure function of the seed and the step.

Nothing about the order is kept between steps, so a resumed run needs only its step number to go on with exactly the
rows an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.data.examples import Example, Examples
from engine.data.length_groups import grouped_by_length, padding_share
from engine.data.mixing import epoch_indices
from engine.data.packing import Packs, count_rows, pack


class StepPlan:
    """A row is a pack of examples of up to `sequence_length` tokens, or one example where packing is off. A step takes
    micro_batch x gradient_accumulation rows; the last step of an epoch takes what is left.

    Of the examples only their lengths and sources are looked at until a step asks for them.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        sequence_length: int,
        packing: bool,
        micro_batch: int,
        gradient_accumulation: int,
        seed: int,
        length_group: int = 1,
        repeats: Sequence[float] = (),
    ):
        """`repeats` is how often the examples of each source come in an epoch; once where it is not given.
        Where packing is off, so many rows as `length_group` that follow each other are of similar length: as many as
        a micro-batch was meant to have, whatever it has since memory ran out, so that a step's rows stay the same."""
        assert len(examples), "a run without training rows is refused when its data is read"
        self.examples = examples
        self.lengths = examples.lengths
        self.packing, self.seed, self.length_group = packing, seed, length_group
        self.micro_batch = micro_batch
        self.rows_per_step = micro_batch * gradient_accumulation
        # A unit of several sequences (a preference pair) may be longer than one of them; it is never divided.
        self.row_tokens = max(sequence_length, int(self.lengths.max()))
        self.repeats = tuple(repeats)
        self._mixed = any(each != 1 for each in repeats)
        self._sources = examples.sources if self._mixed else None
        self._first_steps = [0]  # of each epoch that was counted so far, and of the next
        # The rows of an epoch take seconds to pack for millions of examples and are asked for step by step.
        self._cached_rows = lru_cache(maxsize=1)(self._rows)
        self._rows_in = lru_cache(maxsize=None if self._mixed else 1)(self._count_rows)

    @cached_property
    def fingerprint(self) -> str:
        """Of the first epoch's order, which the versions of finetui and of numpy's generators decide besides the seed;
        memory that runs out does not change it."""
        rows = self._cached_rows(0)
        digest = hashlib.sha256(rows.order.astype("<i8").tobytes() + rows.offsets.astype("<i8").tobytes())
        return f"SHA-256 {digest.hexdigest()}"

    @property
    def steps_per_epoch(self) -> int:
        """Of the first epoch; others differ only where a part of a source comes in each."""
        return self._steps_in(0)

    @property
    def examples_per_step(self) -> float:
        """On average, in the first epoch."""
        return self._cached_rows(0).order.size / self.steps_per_epoch

    def total_steps(self, epochs: float, max_steps: int | None) -> int:
        """Optimizer steps of the whole run."""
        if max_steps:
            return max_steps
        whole = int(epochs)
        rest = math.ceil(round((epochs - whole) * self._steps_in(whole), 6)) if epochs > whole else 0
        return self._first_step(whole) + rest

    def epoch_at(self, step: int) -> float:
        """Passes over the data after `step` steps."""
        epoch, position = self._epoch_of(step)
        return epoch + position / self._steps_in(epoch)

    def micro_batches(self, step: int) -> list[list[Example]]:
        """The examples of optimizer step `step` (from 0), one list a micro-batch."""
        epoch, position = self._epoch_of(step)
        rows = self._cached_rows(epoch)
        start = position * self.rows_per_step
        end = min(len(rows), start + self.rows_per_step)
        return [
            self._examples_of(rows, first, min(end, first + self.micro_batch))
            for first in range(start, end, self.micro_batch)
        ]

    def heaviest(self, *, padded: bool) -> list[Example]:
        """The examples of a micro-batch that has as many tokens as any, padding counted where rows are `padded`."""
        if not self.packing:
            longest = np.argpartition(-self.lengths, min(self.micro_batch, self.lengths.size) - 1)[: self.micro_batch]
            return [self.examples[int(index)] for index in longest[np.argsort(-self.lengths[longest], kind="stable")]]
        rows = self._cached_rows(0)
        if padded:
            starts = self._batch_starts(rows)
            slots = self._longest(rows, starts) * np.diff(starts, append=rows.order.size)
            first = int(np.argmax(slots)) * self.micro_batch
            return self._examples_of(rows, first, min(len(rows), first + self.micro_batch))
        # The fullest rows, whether or not they meet: in another epoch they may.
        fullest = np.argsort(-rows.tokens(self.lengths), kind="stable")[: self.micro_batch]
        return [self.examples[int(index)] for row in fullest for index in rows[int(row)]]

    @property
    def packing_efficiency(self) -> float:
        """Share of the rows' slots that hold a token; 1 where rows are not packed, since nothing is padded."""
        if not self.packing:
            return 1.0
        rows = self._cached_rows(0)
        return int(rows.tokens(self.lengths).sum()) / (len(rows) * self.row_tokens)

    def wasted_share(self, *, padded: bool) -> float:
        """Share of the first epoch's slots that hold no token: of packed rows what is left at their ends, and where
        rows are `padded`, what is padded."""
        rows = self._cached_rows(0)
        if padded:
            return padding_share(self.lengths[rows.order], self._batch_starts(rows))
        return 1.0 - self.packing_efficiency

    def wasted_share_padded(self) -> float:
        """What `wasted_share` would be were as many examples as a micro-batch has put together by chance and padded to
        the longest of them."""
        rows = self._cached_rows(0)
        at_once = max(1, round(rows.order.size / len(rows) * self.micro_batch))
        shuffled = np.random.default_rng(self.seed).permutation(self.lengths[rows.order])
        return padding_share(shuffled, np.arange(0, shuffled.size, at_once))

    def _epoch_of(self, step: int) -> tuple[int, int]:
        """The epoch that step `step` is in, and its place there."""
        if not self._mixed:
            return divmod(step, self.steps_per_epoch)
        while self._first_steps[-1] <= step:
            self._first_step(len(self._first_steps))
        epoch = int(np.searchsorted(self._first_steps, step, side="right")) - 1
        return epoch, step - self._first_steps[epoch]

    def _first_step(self, epoch: int) -> int:
        if not self._mixed:
            return epoch * self.steps_per_epoch
        while len(self._first_steps) <= epoch:
            self._first_steps.append(self._first_steps[-1] + self._steps_in(len(self._first_steps) - 1))
        return self._first_steps[epoch]

    def _steps_in(self, epoch: int) -> int:
        # Best-fit decreasing fills the same number of rows whatever the order of equal lengths: one count for all.
        return math.ceil(self._rows_in(epoch if self._mixed else 0) / self.rows_per_step)

    def _count_rows(self, epoch: int) -> int:
        lengths = self.lengths[self._indices(epoch)]
        return count_rows(lengths, self.row_tokens) if self.packing else lengths.size

    def _indices(self, epoch: int) -> NDArray[np.int32] | slice:
        """The examples of an epoch, each as often as it comes."""
        if self._sources is None:
            return slice(None)
        return epoch_indices(self._sources, self.repeats, epoch, self.seed)

    def _rows(self, epoch: int) -> Packs:
        seed = (self.seed * 1_000_003 + epoch) % 2**32
        indices = self._indices(epoch)
        lengths = self.lengths[indices]
        if self.packing:
            rows = pack(lengths, self.row_tokens, seed)
        else:
            order = grouped_by_length(lengths, self.length_group, seed)
            rows = Packs(order, np.arange(order.size + 1))
        return rows if isinstance(indices, slice) else Packs(indices[rows.order], rows.offsets)

    def _examples_of(self, rows: Packs, first: int, end: int) -> list[Example]:
        return [self.examples[int(index)] for index in rows.order[rows.offsets[first] : rows.offsets[end]]]

    def _batch_starts(self, rows: Packs) -> NDArray[np.int64]:
        """Where in rows.order each micro-batch begins."""
        return rows.offsets[: -1 : self.micro_batch]

    def _longest(self, rows: Packs, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.maximum.reduceat(self.lengths[rows.order], starts).astype(np.int64)
