"""The ids of ordinary text by words looked up, for byte-level BPE tokenizers: three times as fast as their library.

Those split text into words by a regular expression and tokenise each word for itself. Here Python's `re` does the
splitting, and every word is tokenised once, by the library's own model. That is exact only where both regular
expressions mean the same, so it is done for characters whose nature no version of Unicode has changed, and only when a
trial text comes out the same; anything else is left to the library.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import chain
from typing import Any

from tokenizers import Tokenizer, models

from engine.data.tokens.piece_text import byte_of_letter

# How ByteLevel splits when it is not told to leave that to others.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPACE = " \\t\\n\\r"
_TOKEN_OF_PATTERN = re.compile(r"\\p\{(\w+)\}|\\([sS])|\\(.)|(\[\^?)|(\])|(\$|\^)|(.)", re.DOTALL)
_PLAIN_ESCAPES = frozenset("rnt/\\-[]().*+?'|{}")
# Some 100 bytes a word, 30 MB in all.
_WORDS_KEPT = 200_000
_LONGEST_WORD_KEPT = 32
# System prompts and the text between turns: at most 16 MB.
_PARTS_KEPT = 4096
_LONGEST_PART_KEPT = 2048


class WordIds:
    """Made by `of` for a tokenizer that it serves."""

    def __init__(self, backend: Tokenizer, split: str):
        self._find = re.compile(split).findall
        self._foreign = re.compile(f"[^{_SPACE}{_stable_class('L', 'N', 'P', 'S', 'M')}]").search
        added = {each.content: token for token, each in backend.get_added_tokens_decoder().items()}
        self._added = added
        longest_first = sorted(added, key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(map(re.escape, longest_first))})").split if added else None
        self._words = _Words(backend.model)
        self._parts: dict[str, list[int]] = {}

    @classmethod
    def of(cls, backend: Tokenizer) -> WordIds | None:
        split = _split_of(backend)
        if split is None or not _adds_plainly(backend):
            return None
        made = cls(backend, split)
        trial = _trial_text()
        is_same = made.ids(trial) == backend.encode(trial, add_special_tokens=False).ids
        return made if is_same else None

    def ids(self, text: str) -> list[int] | None:
        """None for text that only the library can tokenise exactly."""
        if self._cut is None:
            return self._part(text)
        ids: list[int] = []
        for at, part in enumerate(self._cut(text)):
            if at % 2:
                ids.append(self._added[part])
            elif part:
                found = self._part(part)
                if found is None:
                    return None
                ids += found
        return ids

    def _part(self, text: str) -> list[int] | None:
        if (known := self._parts.get(text)) is not None:
            return known
        if self._foreign(text):
            return None
        words = self._find(text)
        if sum(map(len, words)) != len(text):
            return None  # the expression leaves gaps, which are words too
        ids = list(chain.from_iterable(map(self._words.__getitem__, words)))
        if len(self._words) > _WORDS_KEPT:
            self._words.clear()
        if len(text) <= _LONGEST_PART_KEPT:
            if len(self._parts) >= _PARTS_KEPT:
                self._parts.clear()
            self._parts[text] = ids
        return ids


class _Words(dict[str, tuple[int, ...]]):
    """The ids of each word; one that is missing is tokenised."""

    def __init__(self, model: models.Model):
        super().__init__()
        self._model = model
        letters = {byte: letter for letter, byte in byte_of_letter().items()}
        self._letters = str.maketrans({chr(byte): letter for byte, letter in letters.items()})

    def __missing__(self, word: str) -> tuple[int, ...]:
        written = word.encode().decode("latin-1").translate(self._letters)
        ids = tuple(token.id for token in self._model.tokenize(written))
        if len(word) <= _LONGEST_WORD_KEPT:
            self[word] = ids
        return ids


def _split_of(backend: Tokenizer) -> str | None:
    """The tokenizer's way to split text into words as Python's `re` writes it; None when that cannot be said."""
    if not isinstance(backend.model, models.BPE) or backend.model.dropout:
        return None
    if backend.normalizer is not None and _state(backend.normalizer).get("type") != "NFC":
        return None
    if backend.pre_tokenizer is None:
        return None
    steps = _state(backend.pre_tokenizer)
    match steps.get("pretokenizers", [steps]):
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return _as_re(_GPT2)
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": behavior, "invert": invert},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ] if (behavior, invert) in (("Isolated", False), ("Removed", True)):
            return _as_re(pattern)
    return None


def _state(component: Any) -> dict[str, Any]:
    return json.loads(component.__getstate__())


def _adds_plainly(backend: Tokenizer) -> bool:
    """Whether added tokens are found in the text as it is, and take nothing of what stands beside them."""
    added = backend.get_added_tokens_decoder().values()
    return not any(each.lstrip or each.rstrip or each.single_word or not each.content for each in added)


def _as_re(pattern: str) -> str | None:
    """A regular expression of Oniguruma's for Python, about stable characters only. None for what is not known."""
    written: list[str] = []
    in_class = False
    for match in _TOKEN_OF_PATTERN.finditer(pattern):
        kind, space, escaped, opens, closes, anchor, plain = match.groups()
        if kind:
            written.append(_stable_class(kind) if in_class else f"[{_stable_class(kind)}]")
        elif space:
            if in_class and space == "S":
                return None
            written.append(_SPACE if in_class else f"[{'^' if space == 'S' else ''}{_SPACE}]")
        elif escaped:
            if escaped not in _PLAIN_ESCAPES:
                return None
            written.append(match[0])
        elif opens or closes:
            if in_class == bool(opens):
                return None  # classes within classes, which Python does not have
            in_class = bool(opens)
            written.append(match[0])
        elif anchor:
            return None
        else:
            written.append(plain)
    text = "".join(written)
    try:
        re.compile(text)
    except re.error:
        return None
    return text


@cache
def _stable_class(*kinds: str) -> str:
    """The inside of a class with the stable characters of these general categories or their first letters."""
    found = _stable_characters()
    points = sorted(chain.from_iterable(found[each] for each in found if each in kinds or each[0] in kinds))
    return "".join(
        f"\\u{first:04x}" if first == last else f"\\u{first:04x}-\\u{last:04x}" for first, last in _runs(points)
    )


@cache
def _stable_characters() -> Mapping[str, list[int]]:
    """Characters below U+10000 by category that were in Unicode 3.2 what they are today, and that NFC leaves alone."""
    found: dict[str, list[int]] = defaultdict(list)
    for point in chain(range(0x20, 0x7F), range(0xA1, 0xD800), range(0xF900, 0xFFFE)):
        character = chr(point)
        category = unicodedata.category(character)
        if category[0] in "CZ" and point > 0x7F:
            continue
        if character in "\u017f\u212a":  # which are s and k, the case left aside
            continue
        if (
            unicodedata.ucd_3_2_0.category(character) == category
            and not category.startswith("M")
            and unicodedata.normalize("NFC", character) == character
            and not 0x1100 <= point < 0x1200  # parts of Korean syllables, which NFC puts together
        ):
            found[category].append(point)
    return found


def _runs(points: list[int]) -> Iterator[tuple[int, int]]:
    """Points that follow each other as (first, last)."""
    first = last = -2
    for point in points:
        if point != last + 1:
            if first >= 0:
                yield first, last
            first = point
        last = point
    if first >= 0:
        yield first, last


@cache
def _trial_text() -> str:
    """Words, numbers, marks and white space of every kind beside each other."""
    pieces = [
        "a",
        "Bc",
        "é",
        "ß",
        "Я",
        "語",
        "1",
        "23",
        "4567",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        " \n",
        "'s",
        "'LL",
        "'",
        "-",
        "…",
    ]
    pieces += ["/", "\\", "(", '"', "“", "€", "_", "don't", "I'M", "x", "ǅ", "²", "٣"]
    pairs = "".join(first + second for first in pieces for second in pieces)
    return pairs + "".join(
        first + second + third for first in pieces[:20] for second in pieces[6:16] for third in pieces
    )
