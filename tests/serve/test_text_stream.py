"""Whatever the tokens, what was streamed is in sum what decoding them at once gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from engine.serve.text_stream import TextStream


def stream(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The pieces, the last of them from `finish`."""
    text = TextStream(tokenizer)
    return [*(text.add(token) for token in ids), text.finish()]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tiny.make_tokenizer(tmp_path_factory.mktemp("byte_level"))
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


@pytest.fixture(scope="module")
def sentence_piece() -> Any:
    """As Llama 2's: spaces are ▁, the first is dropped, unknown characters are spelt in bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "▁", *(f"<0x{byte:02X}>" for byte in range(256)), *"abcdefghijklmnopqrstuvwxyz▁."]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@given(ids=st.lists(st.integers(0, 300), max_size=60))
def test_any_tokens_of_a_byte_level_tokenizer(byte_level: Any, ids: list[int]) -> None:
    assert "".join(stream(byte_level, ids)) == byte_level.decode(ids, skip_special_tokens=True)


@given(text=st.text(st.sampled_from("ab .é漢🙂👩🏽\u200d"), max_size=40))
def test_any_text_in_a_sentence_piece_tokenizer(sentence_piece: Any, text: str) -> None:
    ids = sentence_piece(text, add_special_tokens=False)["input_ids"]
    pieces = stream(sentence_piece, ids)
    assert "".join(pieces) == sentence_piece.decode(ids, skip_special_tokens=True)
    assert not any("\ufffd" in piece for piece in pieces)


def test_text_comes_as_soon_as_it_is_certain(byte_level: Any) -> None:
    ids = byte_level(" é🙂!", add_special_tokens=False)["input_ids"]
    pieces = stream(byte_level, ids)
    assert [piece for piece in pieces if piece] == [" ", "é", "🙂", "!"]
    assert pieces[-1] == ""


def test_bytes_that_are_no_text_are_not_held_back_for_ever(byte_level: Any) -> None:
    [stray] = byte_level.convert_tokens_to_ids(["¢"])  # how the byte-level alphabet spells byte 0x9F
    pieces = stream(byte_level, [stray] * 50)
    assert len([piece for piece in pieces if piece]) > 40
