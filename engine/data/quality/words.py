"""Texts as hashes of their words, many texts at once: what duplicates and leaks are found by.

Case, punctuation and spacing do not count. Where a script writes no spaces between words, each character is one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

# A text is compared by its beginning: this many characters are some 200,000 words, and the list of a text's words
# takes seventy times their number in bytes.
COMPARED_CHARACTERS = 2**20

# Thai, Lao, Khmer and Burmese; Japanese syllables; Chinese characters (the rarer planes as well).
_WORD = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]|[^\\W_]+")

# Odd, so that multiplying by it loses nothing of 64 bits.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)


def words_of(text: str) -> list[str]:
    """The words of `text` as they are compared, of its first COMPARED_CHARACTERS."""
    return _WORD.findall(text[:COMPARED_CHARACTERS].lower())


def hashed_words(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of all words of all texts, one after another, and where each text's begin: (words,), (texts + 1,)."""
    if not texts:
        return np.zeros(0, np.uint64), np.zeros(1, np.int64)
    hashes = RMinHash.hash_token_sets([words_of(text) for text in texts])
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(each) for each in hashes], out=offsets[1:])
    return np.fromiter(chain.from_iterable(hashes), np.uint64, int(offsets[-1])), offsets


def word_runs(
    words: NDArray[np.uint64], offsets: NDArray[np.int64], length: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A hash for every `length` words in a row within one text, and where each text's begin.

    A text of fewer words has one hash, of all its words; one without words has none.
    """
    counts = np.diff(offsets)
    run_counts = np.where(counts >= length, counts - length + 1, np.minimum(counts, 1))
    run_offsets = np.zeros(len(offsets), np.int64)
    np.cumsum(run_counts, out=run_offsets[1:])
    starts = np.arange(run_offsets[-1], dtype=np.int64) + np.repeat(offsets[:-1] - run_offsets[:-1], run_counts)
    ends = np.repeat(offsets[1:], run_counts)
    hashes = np.zeros(len(starts), np.uint64)
    for step in range(length):
        places = starts + step
        inside = places < ends
        word = words[np.where(inside, places, starts)] if len(words) else words
        hashes = hashes * _MULTIPLIER + np.where(inside, word, np.uint64(0))
        hashes ^= hashes >> _SHIFT
    return hashes, run_offsets
