"""Ids by words looked up are the ids of the library, whatever the text."""

from __future__ import annotations

import pytest
from chat_families import tokenizer_of
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from engine.data.tokens.word_ids import WordIds

SPLITS = {
    "qwen": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def trained(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = ["It's the café's 1234 words; DON'T worry.\n\n  Привет, мир! 語語 He'll see 'em all...  \t x\r\n"] * 4
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return tokenizer


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    steps = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return pre_tokenizers.Sequence(steps)


BACKENDS = {
    "gpt2": trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "llama3": tokenizer_of("llama3").backend_tokenizer,
    **{name: trained(split_by(pattern)) for name, pattern in SPLITS.items()},
}
WORD_IDS = {name: WordIds.of(backend) for name, backend in BACKENDS.items()}

pieces = st.sampled_from(
    ["the", "IT", "'s", "'LL", " ", "  ", "\n", "\r\n", "\t", "é", "ß", "мир", "語", "1", "12345", "<|end|>", "<tool>"]
)
texts = st.lists(pieces | st.text(st.characters(exclude_categories=("Cs",)), max_size=4), max_size=30).map("".join)


@given(text=texts)
@example(text="I'ſ 300 \u212a'\u017f")  # letters that are others with the case left aside
@example(text="a\u0301 \u1100\u1161 \u00a0 x\u2028y\x1c \x85")  # what NFC changes, and spaces of other kinds
@pytest.mark.parametrize("name", BACKENDS)
def test_ids_are_those_of_the_library(name: str, text: str):
    words, backend = WORD_IDS[name], BACKENDS[name]
    assert words is not None
    ids = words.ids(text)
    assert ids is None or ids == backend.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", BACKENDS)
def test_ordinary_text_is_looked_up(name: str):
    words = WORD_IDS[name]
    assert words is not None and words.ids("It's “fine” – naïve, мир 語 100 €.\n\n\tdef x(): pass<|end|>\n") is not None


def test_tokenizers_that_work_otherwise_are_left_to_the_library():
    assert WordIds.of(tokenizer_of("mistral").backend_tokenizer) is None
    assert WordIds.of(tokenizer_of("gemma").backend_tokenizer) is None
    assert WordIds.of(trained(split_by(r"\d+|\w+|\W"))) is None  # classes that differ between the two
    assert WordIds.of(trained(split_by(r"^\p{L}+|\p{L}|."))) is None
    taking = trained(split_by(SPLITS["qwen"]))
    taking.add_tokens([AddedToken("<greedy>", lstrip=True)])
    assert WordIds.of(taking) is None
