"""How byte-level BPE tokenizers split text into words.

They do it by a regular expression of Oniguruma's. Python's `re` does the same only where both mean the same, so it is
used for text of characters whose nature no version of Unicode has changed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import chain

from tokenizers import Tokenizer, models

from engine.data.tokens.piece_text import byte_of_letter
from engine.data.tokens.word_rule import WordRule, state_of

# How ByteLevel splits when it is not told to leave that to others.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPACE = " \\t\\n\\r\\u00a0\\u3000"
# Kinds that no pattern may name: pictures, which are signs today and were nothing in older versions of Unicode, and
# what joins pictures.
_BESIDE = ("picture", "joiner")
_TOKEN_OF_PATTERN = re.compile(r"\\p\{(\w+)\}|\\([sS])|\\(.)|(\[\^?)|(\])|(\$|\^)|(.)", re.DOTALL)
_PLAIN_ESCAPES = frozenset("rnt/\\-[]().*+?'|{}")


def byte_level_words(backend: Tokenizer) -> WordRule | None:
    """None for tokenizers that split otherwise or whose expression cannot be said in Python's `re`."""
    split = _split_of(backend)
    if split is None:
        return None
    foreign = f"[^{_SPACE}{_stable_class('L', 'N', 'P', 'S', 'M', *_BESIDE)}]"
    return WordRule(words=split, foreign=foreign, spelled=_spelled, trial=_trial_text())


def _split_of(backend: Tokenizer) -> str | None:
    """The tokenizer's way to split text into words as Python's `re` writes it; None when that cannot be said."""
    if not isinstance(backend.model, models.BPE) or backend.model.dropout:
        return None
    if backend.normalizer is not None and state_of(backend.normalizer).get("type") != "NFC":
        return None
    if backend.pre_tokenizer is None:
        return None
    steps = state_of(backend.pre_tokenizer)
    match steps.get("pretokenizers", [steps]):
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return _as_re(_GPT2)
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": behavior, "invert": invert},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ] if (behavior, invert) in (("Isolated", False), ("Removed", True)):
            return _as_re(pattern)
    return None


def _spelled(word: str) -> str:
    return word.encode().decode("latin-1").translate(_letters())


@cache
def _letters() -> dict[int, str]:
    return str.maketrans({chr(byte): letter for letter, byte in byte_of_letter().items()})


def _as_re(pattern: str) -> str | None:
    """A regular expression of Oniguruma's for Python, about stable characters only. None for what is not known."""
    written: list[str] = []
    in_class = False
    for match in _TOKEN_OF_PATTERN.finditer(pattern):
        kind, space, escaped, opens, closes, anchor, plain = match.groups()
        if kind:
            if kind[0] in "SC":
                return None  # which pictures have become, and joiners may be
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
        f"\\U{first:08x}" if first == last else f"\\U{first:08x}-\\U{last:08x}" for first, last in _runs(points)
    )


@cache
def _stable_characters() -> Mapping[str, list[int]]:
    """Characters below U+10000 by category that were in Unicode 3.2 what they are today, and that NFC leaves alone;
    and pictures."""
    found: dict[str, list[int]] = defaultdict(list)
    found["joiner"] = [0x200D]
    found["Mn"] = [0xFE0F]  # which makes a picture of a sign
    pictures = chain(range(0x2600, 0x27C0), range(0x1F300, 0x1F3FB), range(0x1F400, 0x1F700), range(0x1F900, 0x1FA00))
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
    known = set(found["So"])
    found["picture"] = [point for point in pictures if unicodedata.category(chr(point)) == "So" and point not in known]
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
        "\u00a0",
        "\u3000",
        "😀",
        "☕\ufe0f",
        "👩\u200d🚀",
    ]
    pieces += ["/", "\\", "(", '"', "“", "€", "_", "don't", "I'M", "x", "ǅ", "²", "٣"]
    pairs = "".join(first + second for first in pieces for second in pieces)
    return pairs + "".join(
        first + second + third for first in pieces[:20] for second in pieces[6:16] for third in pieces
    )
