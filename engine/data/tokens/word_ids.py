"""The ids of ordinary text by words looked up: several times as fast as the tokenizers' library.

Tokenizers split text into words (engine.data.tokens.byte_level), or could (engine.data.tokens.spaced), and tokenise
each word for itself. Here Python's `re` does the splitting, and every word is tokenised once, by the library's own
model. A tokenizer is served only when a trial text comes out the same; text that holds anything of which it is not sure
that it would is left to the library.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Sequence

from tokenizers import Tokenizer, models

from engine.data.tokens.byte_level import byte_level_words
from engine.data.tokens.spaced import spaced_words
from engine.data.tokens.word_rule import WordRule

# Some 150 bytes a word, 30 MB in all.
_WORDS_KEPT = 200_000
_LONGEST_WORD_KEPT = 32
# System prompts and the text between turns: at most 16 MB.
_PARTS_KEPT = 4096
_LONGEST_PART_KEPT = 2048
_ID_BYTES = 4


class WordIds:
    """Made by `of` for a tokenizer that it serves."""

    def __init__(self, backend: Tokenizer, rule: WordRule):
        self._find = re.compile(rule.words).findall
        self._foreign = re.compile(rule.foreign).search
        self._is_apart = re.compile(rule.apart).match
        self._before = rule.before
        added = {each.content: packed([token]) for token, each in backend.get_added_tokens_decoder().items()}
        self._added = added
        longest_first = sorted(added, key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(map(re.escape, longest_first))})").split if added else None
        self._words = _Words(backend.model, rule.spelled)
        self._parts: dict[str, bytes] = {}

    @classmethod
    def of(cls, backend: Tokenizer) -> WordIds | None:
        rule = (byte_level_words(backend) or spaced_words(backend)) if _adds_plainly(backend) else None
        if rule is None:
            return None
        made = cls(backend, rule)
        is_same = made.ids(rule.trial) == packed(backend.encode(rule.trial, add_special_tokens=False).ids)
        return made if is_same else None

    def ids(self, text: str) -> bytes | None:
        """As 32-bit numbers; None for text that only the library can tokenise exactly."""
        if self._cut is None:
            return self._part(text, self._before) if text else b""
        ids: list[bytes] = []
        for at, part in enumerate(self._cut(text)):
            if at % 2:
                ids.append(self._added[part])
            elif part:
                found = self._part(part, self._before)
                if found is None:
                    return None
                ids.append(found)
        return b"".join(ids)

    def ids_and_places(self, text: str, edges: Sequence[int]) -> tuple[bytes, list[int]] | None:
        """As `ids`, and for each of `edges`, rising places in the text, how many ids stand before it. None also when
        one of them may lie within a token."""
        ids: list[bytes] = []
        places: list[int] = []
        begins = count = 0
        for number, part in enumerate(self._cut(text) if self._cut else [text]):
            ends = begins + len(part)
            inside = [edge - begins for edge in edges[len(places) :] if edge < ends]
            pieces = [None if any(inside) else self._added[part]] if number % 2 else self._pieces(part, inside)
            for edge in inside:
                # An edge at the part's own beginning has all of its pieces behind it.
                found = pieces.pop(0) if edge else b""
                if found is None:
                    return None
                ids.append(found)
                count += len(found) // _ID_BYTES
                places.append(count)
            for found in pieces:
                if found is None:
                    return None
                ids.append(found)
                count += len(found) // _ID_BYTES
            begins = ends
        return b"".join(ids), places + [count] * (len(edges) - len(places))

    def _pieces(self, text: str, edges: Sequence[int]) -> list[bytes | None]:
        """The ids of text without added tokens in pieces, cut at `edges`; None for what cannot be told."""
        if not text:
            return []
        pieces: list[bytes | None] = []
        begins, before = 0, self._before
        for edge in (*filter(None, edges), len(text)):
            if edge < len(text) and not self._is_apart(text, edge):
                return [None]
            pieces.append(self._part(text[begins:edge], before))
            begins, before = edge, ""
        return pieces

    def _part(self, text: str, before: str) -> bytes | None:
        written = before + text
        if (known := self._parts.get(written)) is not None:
            return known
        if self._foreign(text):
            return None
        words = self._find(written)
        if sum(map(len, words)) != len(written):
            return None  # the expression leaves gaps, which are words too
        ids = b"".join(map(self._words.__getitem__, words))
        if len(self._words) > _WORDS_KEPT:
            self._words.clear()
        if len(text) <= _LONGEST_PART_KEPT:
            if len(self._parts) >= _PARTS_KEPT:
                self._parts.clear()
            self._parts[written] = ids
        return ids


def packed(ids: Iterable[int]) -> bytes:
    """Ids as 32-bit numbers one behind the other: joined and copied at once, where lists are walked through."""
    return array("i", ids).tobytes()


class _Words(dict[str, bytes]):
    """The ids of each word; one that is missing is tokenised."""

    def __init__(self, model: models.Model, spelled: Callable[[str], str]):
        super().__init__()
        self._model = model
        self._spelled = spelled

    def __missing__(self, word: str) -> bytes:
        ids = packed([token.id for token in self._model.tokenize(self._spelled(word))])
        if len(word) <= _LONGEST_WORD_KEPT:
            self[word] = ids
        return ids


def _adds_plainly(backend: Tokenizer) -> bool:
    """Whether added tokens are found in the text as it is, and take nothing of what stands beside them."""
    added = backend.get_added_tokens_decoder().values()
    return not any(each.lstrip or each.rstrip or each.single_word or not each.content for each in added)
