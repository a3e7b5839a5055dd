"""Ids by words looked up are the ids of the library, whatever the text."""

from __future__ import annotations

import json

import pytest
from chat_families import tokenizer_of
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from engine.data.tokens.word_ids import WordIds, packed

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


def spaced(normalizer: normalizers.Normalizer, pre_tokenizer: pre_tokenizers.PreTokenizer | None) -> Tokenizer:
    """As made from SentencePiece's: trained word by word, and put to work on the whole text."""
    words = Regex(r"▁*\p{L}+|▁*\p{N}|▁*[^\p{L}\p{N}▁\n]+|\n+|▁+")
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(words, behavior="isolated")
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    texts = ["It's the café's 1234 words; DON'T worry.\n\n  Привет, мир! 語語 He'll see 'em all...    x\n"] * 4
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", *names]))
    written = json.loads(tokenizer.to_str())
    written["added_tokens"] = [each for each in written["added_tokens"] if each["content"] not in names]
    written["normalizer"] = json.loads(normalizer.__getstate__())
    written["pre_tokenizer"] = None if pre_tokenizer is None else json.loads(pre_tokenizer.__getstate__())
    tokenizer = Tokenizer.from_str(json.dumps(written))
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return tokenizer


TO_MARKS = normalizers.Replace(" ", "▁")
BACKENDS = {
    "gpt2": trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "llama3": tokenizer_of("llama3").backend_tokenizer,
    **{name: trained(split_by(pattern)) for name, pattern in SPLITS.items()},
    "llama2": spaced(normalizers.Sequence([normalizers.Prepend("▁"), TO_MARKS]), None),
    "gemma": spaced(TO_MARKS, pre_tokenizers.Split(" ", "merged_with_previous")),
}
WORD_IDS = {name: WordIds.of(backend) for name, backend in BACKENDS.items()}

pieces = st.sampled_from(
    [
        *(
            "the",
            "IT",
            "'s",
            "'LL",
            " ",
            "  ",
            "\n",
            "\r\n",
            "\t",
            "é",
            "ß",
            "мир",
            "語",
            "1",
            "12345",
            "<|end|>",
            "<tool>",
        ),
        *("☕", "\ufe0f", "👩", "\u200d", "🚀", "🏽", "\u00a0", "\u3000", "▁", ","),
    ]
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
    assert ids is None or ids == packed(backend.encode(text, add_special_tokens=False).ids)


@given(text=texts, data=st.data())
@pytest.mark.parametrize("name", ["llama2", "gemma"])
def test_places_are_those_of_the_library(name: str, text: str, data: st.DataObject):
    edges = data.draw(st.sets(st.integers(0, len(text)), max_size=4).map(sorted))
    words, backend = WORD_IDS[name], BACKENDS[name]
    assert words is not None
    found = words.ids_and_places(text, edges)
    if found is not None:
        encoding = backend.encode(text, add_special_tokens=False)
        assert found[0] == packed(encoding.ids)
        for edge, place in zip(edges, found[1], strict=True):
            assert place == sum(ends <= edge for _, ends in encoding.offsets)
            assert place == sum(begins < edge for begins, _ in encoding.offsets)


@pytest.mark.parametrize("name", BACKENDS)
def test_ordinary_text_is_looked_up(name: str):
    words = WORD_IDS[name]
    ordinary = "It's “fine” – naïve, мир 語 100 € ☕\ufe0f👩\u200d🚀.\u00a0\n\n\tdef x(): pass<|end|>\n"
    assert words is not None and words.ids(ordinary) is not None


def test_tokenizers_that_work_otherwise_are_left_to_the_library():
    assert WordIds.of(tokenizer_of("mistral").backend_tokenizer) is None
    assert WordIds.of(tokenizer_of("gemma").backend_tokenizer) is None
    assert WordIds.of(trained(split_by(r"\d+|\w+|\W"))) is None  # classes that differ between the two
    assert WordIds.of(trained(split_by(r"^\p{L}+|\p{L}|."))) is None
    taking = trained(split_by(SPLITS["qwen"]))
    taking.add_tokens([AddedToken("<greedy>", lstrip=True)])
    assert WordIds.of(taking) is None
