"""Benchmark rows that stand among the training rows: by runs of words that both have.

A training row leaks a benchmark row when it has at least half of the benchmark row's runs of eight words. Runs that
many benchmark rows have ("answer with one of the letters ...") say nothing and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.data.quality.words import hashed_words, word_runs

RUN_WORDS = 8
LEAKED_SHARE = 0.5

# Of a long benchmark row as many runs as are needed to tell a share, evenly spread.
_RUNS_KEPT = 32
# A run in more benchmark rows than this is how the benchmark asks, not what it asks.
_COMMON_ROWS = 5
# Fewer words than this are found everywhere ("yes", "thank you").
_FEWEST_WORDS = 3


@dataclass(frozen=True, slots=True, eq=False)
class LeakIndex:
    runs: NDArray[np.uint64]
    """Sorted hashes of runs of words."""
    rows: NDArray[np.int32]
    """The benchmark row that each belongs to."""
    needed: NDArray[np.int32]
    """How many runs of each benchmark row a training row must have to leak it, (benchmark rows,); 0: cannot leak."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> LeakIndex:
        """An index over one text for each benchmark row."""
        words, offsets = hashed_words(texts)
        runs, run_offsets = word_runs(words, offsets, RUN_WORDS)
        owners = np.repeat(np.arange(len(texts), dtype=np.int32), np.diff(run_offsets))
        keep = (np.diff(offsets) >= _FEWEST_WORDS)[owners] & ~_is_common(runs, owners)
        runs, owners = _thinned(runs[keep], owners[keep], len(texts))
        totals = np.bincount(owners, minlength=len(texts)).astype(np.int32)
        order = np.argsort(runs, kind="stable")
        return cls(runs[order], owners[order], np.ceil(totals * LEAKED_SHARE).astype(np.int32))

    def leaks(self, rows: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """For each training row, given as its texts, the position of a benchmark row that it leaks; else -1."""
        found = np.full(len(rows), -1, np.int64)
        if not len(self.runs) or not rows:
            return found
        words, offsets = hashed_words([text for texts in rows for text in texts])
        owners = np.repeat(np.arange(len(rows), dtype=np.int64), [len(texts) for texts in rows])
        return self.leaks_of_words(words, offsets, owners, len(rows))

    def leaks_of_words(
        self, words: NDArray[np.uint64], offsets: NDArray[np.int64], owners: NDArray[np.int64], row_count: int
    ) -> NDArray[np.int64]:
        """The same from words that were hashed already; `owners` (texts,) says which row each text is of."""
        found = np.full(row_count, -1, np.int64)
        runs, run_offsets = word_runs(words, offsets, RUN_WORDS)
        run_owners = np.repeat(owners, np.diff(run_offsets))
        first = np.searchsorted(self.runs, runs, side="left")
        known = first < len(self.runs)
        known[known] = self.runs[first[known]] == runs[known]
        if not known.any():
            return found
        runs, run_owners, first = runs[known], run_owners[known], first[known]
        last = np.searchsorted(self.runs, runs, side="right")
        counts = last - first
        places = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        # A run that a training row has twice counts once.
        pairs = np.unique(np.stack([np.repeat(run_owners, counts), places], axis=1), axis=0)
        matched, shared = np.unique(
            np.stack([pairs[:, 0], self.rows[pairs[:, 1]].astype(np.int64)], axis=1), axis=0, return_counts=True
        )
        leaked = matched[shared >= self.needed[matched[:, 1]]]
        found[leaked[:, 0]] = leaked[:, 1]
        return found

    def save(self, folder: Path) -> None:
        for name in self.__slots__:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> LeakIndex:
        """A saved index as memory maps, so that several processes share one copy."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in cls.__slots__))


def _is_common(runs: NDArray[np.uint64], owners: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether each run is in more than _COMMON_ROWS benchmark rows."""
    distinct, inverse = np.unique(runs, return_inverse=True)
    if not len(distinct):
        return np.zeros(0, bool)
    pairs = np.unique(np.stack([inverse.astype(np.int64), owners.astype(np.int64)], axis=1), axis=0)
    row_counts = np.bincount(pairs[:, 0], minlength=len(distinct))
    return row_counts[inverse] > _COMMON_ROWS


def _thinned(
    runs: NDArray[np.uint64], owners: NDArray[np.int32], row_count: int
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """At most _RUNS_KEPT runs of each row, evenly spread over it; `owners` is in order."""
    totals = np.bincount(owners, minlength=row_count)
    starts = np.cumsum(totals) - totals
    position = np.arange(len(runs)) - starts[owners]
    total = totals[owners]
    kept = np.minimum(total, _RUNS_KEPT)
    # The position is kept where position * kept / total passes a whole number.
    keep = (position * kept) // total != ((position - 1) * kept) // total
    return runs[keep], owners[keep]
