"""Near duplicates: a small signature for each text (MinHash), and the groups of texts whose signatures agree.

The share of a signature's numbers that two texts have in common estimates the share of word triples that they have
in common (their Jaccard similarity) with a standard error of at most 0.06. Candidates are found by sorting: texts
that agree in all four numbers of any band. Measured on 400 pairs each: of pairs that are 0.9 alike 99.5 % are found,
of 0.85 90 %, of 0.8 half, of 0.7 one in 200 and of 0.65 none.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from engine.data.quality.words import hashed_words, word_runs

SIGNATURE_NUMBERS = 64
SIGNATURE_VERSION = f"words3-rensa{RMinHash.ALGORITHM_VERSION}-64x16"
"""Changes whenever signatures made before can no longer be compared with new ones."""
NEAR = 0.8
"""The similarity from which on two texts count as nearly the same."""

_RUN_WORDS = 3
_SEED = 42
_BAND_NUMBERS = 4  # of 16 bits each, so that a band is one 64-bit number
_BANDS = SIGNATURE_NUMBERS // _BAND_NUMBERS
_EMPTY_BAND = np.uint64(2**64 - 1)
# Texts of one band's run are compared with its first; those that differ form the next round's run. Runs that need
# more rounds hold dissimilar texts with a common opening, whose duplicates other bands find.
_ROUNDS = 8
_BLOCK_PAIRS = 65_536


def signature(text: str) -> NDArray[np.uint16]:
    """The signature of one text, (64,); see `signatures`."""
    return signatures([text])[0]


def signatures(texts: Sequence[str]) -> NDArray[np.uint16]:
    """(texts, 64): 128 bytes a text. All ones for a text without words, which is near to nothing."""
    if not texts:
        return np.zeros((0, SIGNATURE_NUMBERS), np.uint16)
    words, offsets = hashed_words(texts)
    return signatures_of_words(words, offsets)


def signatures_of_words(words: NDArray[np.uint64], offsets: NDArray[np.int64]) -> NDArray[np.uint16]:
    """The same from words that were hashed already."""
    runs, run_offsets = word_runs(words, offsets, _RUN_WORDS)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        runs, run_offsets.astype(np.uint64), SIGNATURE_NUMBERS, _SEED
    )
    # The lower 16 bits: two different texts agree in them by chance once in 65,536 numbers.
    return np.array(matrix.to_rows(), np.uint32).astype(np.uint16).reshape(-1, SIGNATURE_NUMBERS)


def similarity(first: NDArray[np.uint16], second: NDArray[np.uint16]) -> float:
    """The estimated share of word triples that two texts have in common, from their signatures."""
    return float(np.mean(first == second))


def near_duplicate_groups(all_signatures: NDArray[np.uint16], threshold: float = NEAR) -> NDArray[np.int64]:
    """For each text the position of the first text of its group: its own where nothing before it is near.

    A group holds what is linked by pairs of at least `threshold`. `all_signatures` (texts, 64) may be a memory map,
    of which no more than a band's pages are kept in memory; besides, some 40 bytes a text are taken.
    """
    count = len(all_signatures)
    parents = np.arange(count, dtype=np.int64)
    needed = int(np.ceil(threshold * SIGNATURE_NUMBERS - 1e-9))
    for band in range(_BANDS):
        members, firsts = _runs_of(_band(all_signatures, band))
        for _ in range(_ROUNDS):
            if not len(members):
                break
            apart = _roots(parents, members) != _roots(parents, firsts)
            members, firsts = members[apart], firsts[apart]
            near = _agreement(all_signatures, members, firsts) >= needed
            _join(parents, members[near], firsts[near])
            members, firsts = _next_round(members[~near], firsts[~near])
        _forget_pages(all_signatures)
    return _roots(parents, np.arange(count))


def _band(all_signatures: NDArray[np.uint16], band: int) -> NDArray[np.uint64]:
    """One band of every text as a number, (texts,)."""
    keys = np.empty(len(all_signatures), np.uint64)
    columns = slice(band * _BAND_NUMBERS, (band + 1) * _BAND_NUMBERS)
    for start in range(0, len(keys), _BLOCK_PAIRS):
        block = np.ascontiguousarray(all_signatures[start : start + _BLOCK_PAIRS, columns])
        keys[start : start + len(block)] = block.view(np.uint64)[:, 0]
    return keys


def _runs_of(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(member, first) for every text that is not the first with its key; texts without words are left out."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.empty(len(order), bool)
    begins[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    heads = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0)) if len(order) else order
    repeats = ~begins & (ordered != _EMPTY_BAND)
    return order[repeats], order[heads[repeats]]


def _next_round(members: NDArray[np.int64], firsts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What differed from its run's first, to be compared with the first of those that differed.

    Both arrays are in the order of runs, and `firsts` is equal within a run.
    """
    if not len(members):
        return members, firsts
    begins = np.empty(len(firsts), bool)
    begins[0] = True
    np.not_equal(firsts[1:], firsts[:-1], out=begins[1:])
    heads = np.maximum.accumulate(np.where(begins, np.arange(len(firsts)), 0))
    return members[~begins], members[heads[~begins]]


def _agreement(
    all_signatures: NDArray[np.uint16], firsts: NDArray[np.int64], seconds: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many numbers each pair's signatures have in common."""
    agreed = np.empty(len(firsts), np.int64)
    for start in range(0, len(firsts), _BLOCK_PAIRS):
        block = slice(start, start + _BLOCK_PAIRS)
        agreed[block] = (all_signatures[firsts[block]] == all_signatures[seconds[block]]).sum(axis=1)
    return agreed


def _roots(parents: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    found = parents[places]
    while True:
        above = parents[found]
        if np.array_equal(above, found):
            return found
        found = above


def _join(parents: NDArray[np.int64], ones: NDArray[np.int64], others: NDArray[np.int64]) -> None:
    """Puts each pair into one group; the smallest position of a group stays its root."""
    while len(ones):
        ones, others = _roots(parents, ones), _roots(parents, others)
        apart = ones != others
        ones, others = ones[apart], others[apart]
        np.minimum.at(parents, np.maximum(ones, others), np.minimum(ones, others))


def _forget_pages(array: NDArray[np.uint16]) -> None:
    """Gives the pages of a memory map back, which the kernel would count as ours until it needs them."""
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
