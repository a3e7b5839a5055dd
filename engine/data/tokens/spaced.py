"""Which words the text falls into for tokenizers made from SentencePiece's, such as Llama 2's, Mistral's and Gemma's.

They work on the whole text, with a mark in the place of each space, and join neighbours that make a token. So where no
token has one character behind another, nothing is ever joined across the two, and text may be cut there: before spaces
mostly, and around line ends.
"""

from __future__ import annotations

import re
from string import punctuation

from tokenizers import Tokenizer, models

from engine.data.tokens.word_rule import WordRule, state_of

_MARK = "▁"
# Between tokens that are looked through together: no token that is made by joining holds it.
_APART = "\x00"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_TO_MARKS = {"type": "Replace", "pattern": {"String": " "}, "content": _MARK}
_MARK_FIRST = {"type": "Prepend", "prepend": _MARK}
_LETTER = r"[^\W_]"
# Looks for spaces where none are left.
_IDLE_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
_TRIAL = [
    "a",
    "Bc",
    "naïve",
    "語",
    "1234",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "'s",
    ",",
    ".",
    "x_y",
    "(",
    "€",
    "👩\u200d🚀",
]


def spaced_words(backend: Tokenizer) -> WordRule | None:
    """None for tokenizers of other kinds, and where tokens hold a space behind something else."""
    before = _before(backend)
    if before is None or any(each.normalized for each in backend.get_added_tokens_decoder().values()):
        return None
    vocabulary = backend.get_vocab(with_added_tokens=False)
    tokens = _APART.join(vocabulary.keys() - set(_BYTES))
    if not vocabulary.keys() >= set(_BYTES) or re.search(f"[^{_MARK}{_APART}]{_MARK}", tokens):
        return None
    ends = "" if re.search(rf"[^\n{_APART}]\n|\n[^\n{_APART}]", tokens) else r"\n"
    marks = f"[{re.escape(punctuation)}]"
    behind = _class(set(punctuation) - set(re.findall(rf"{_LETTER}(?=({marks}))", tokens)))
    ahead = _class(set(punctuation) - set(re.findall(rf"({marks})(?={_LETTER})", tokens)))
    words = [rf" *+{_LETTER}++(?={behind})", rf" *+{ahead}++(?={_LETTER})", f" *[^ {ends}]+", " +"]
    return WordRule(
        words="|".join([*words, f"{ends}+"] if ends else words),
        foreign=_MARK,  # which stands for itself there, and could join the spaces beside it
        spelled=_spelled,
        trial="".join(one + other for one in _TRIAL for other in _TRIAL),
        apart=r"(?<! ) |(?<!\n)\n|(?<=\n)(?!\n)" if ends else "(?<! ) ",
        before=before,
    )


def _before(backend: Tokenizer) -> str | None:
    """What the tokenizer puts before text; None when it does anything else with it."""
    model = backend.model
    if not isinstance(model, models.BPE) or not model.byte_fallback or model.ignore_merges or model.dropout:
        return None
    if model.continuing_subword_prefix or model.end_of_word_suffix:
        return None
    if backend.pre_tokenizer is not None and state_of(backend.pre_tokenizer) != _IDLE_SPLIT:
        return None
    steps = {} if backend.normalizer is None else state_of(backend.normalizer)
    match steps.get("normalizers", [steps]):
        case [only] if only == _TO_MARKS:
            return ""
        case [first, second] if (first, second) == (_MARK_FIRST, _TO_MARKS):
            return " "
    return None


def _class(characters: set[str]) -> str:
    """A regular expression for any of them."""
    return f"[{re.escape(''.join(sorted(characters)))}]" if characters else "(?!)"


def _spelled(word: str) -> str:
    return word.replace(" ", _MARK)
