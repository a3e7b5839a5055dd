"""A model's tokenizer as far as text, tokens and chat templates go, without the libraries of models."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tokenizers import Encoding, Tokenizer

from engine.data.tokens.piece_text import PieceText
from engine.data.tokens.word_ids import WordIds, packed
from profiles.problem import Problem

_Item = TypeVar("_Item")

# A tokenizer takes some 200 bytes for each character that it works on at once.
_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Description:
    """What transformers knows of a model's tokenizer, and all that text needs of it. JSON, so that it can be kept."""

    backend: str
    """The tokenizer as the tokenizers library writes it (tokenizer.json)."""
    named: Mapping[str, str]
    """The special tokens by their part, as templates get them: {"eos_token": "</s>"}."""
    special: Mapping[int, str]
    """All special tokens."""
    eos_id: int | None
    bos_id: int | None
    unk_id: int | None
    vocabulary: int
    """Tokens, the added ones included."""
    chat_template: str | None
    tool_template: str | None
    """Of a model with a template of its own for rows with tools."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Description:
        special = {int(token): text for token, text in values["special"].items()}
        return cls(**{**values, "special": special})


class TextTokenizer:
    """Text to token ids and back, for one model and one chat template. Made by `load_text_tokenizer`."""

    def __init__(
        self,
        name: str,
        description: Description,
        *,
        template_name: str = "model",
        chat_template: str | None = None,
        embedding_rows: int | None = None,
        notes: tuple[str, ...] = (),
    ):
        """`name` is how people are told of the model; `chat_template` is used where `template_name` is not "model"."""
        self.name = name
        is_own = template_name == "model"
        self.template_name = template_name
        self.chat_template = description.chat_template if is_own else chat_template
        self.tool_template = description.tool_template if is_own else None
        self.named = dict(description.named)
        self.special = dict(description.special)
        self.eos_id, self.bos_id, self.unk_id = description.eos_id, description.bos_id, description.unk_id
        self.vocabulary = description.vocabulary
        self.embedding_rows = embedding_rows
        """Rows of the model's embedding; None when nothing tells. An id beyond them cannot be learnt."""
        self.notes = notes
        """What a person should know of the choice, one sentence each."""
        self._backend = _backend(description.backend)
        self.leading_ids, self.trailing_ids = self._find_frame()
        """What the tokenizer puts in front of and behind plain text, such as a beginning-of-text token."""
        self.sha256 = self._hash(description)
        """Of everything that decides which ids a content becomes."""
        self._piece_text = PieceText(self._backend)
        self._word_ids = WordIds.of(self._backend)

    def to_wire(self) -> dict[str, Any]:
        """For `engine.wire`: without what another process makes anew."""
        made_anew = ("_backend", "_piece_text", "_word_ids")
        kept = {name: value for name, value in self.__dict__.items() if name not in made_anew}
        return {**kept, "backend": self._backend.to_str()}

    @classmethod
    def from_wire(cls, state: dict[str, Any]) -> TextTokenizer:
        made = cls.__new__(cls)
        made.__dict__.update(state)
        made._backend = _backend(made.__dict__.pop("backend"))
        made._piece_text = PieceText(made._backend)
        made._word_ids = WordIds.of(made._backend)
        return made

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without what the tokenizer puts around texts. Many at once are faster."""
        return [array("i", ids).tolist() for ids in self.packed_ids(texts)]

    def packed_ids(self, texts: Sequence[str]) -> list[bytes]:
        """The same as 32-bit numbers, which is how they are had fastest."""
        if self._word_ids is None:
            return self._library_ids(texts)
        found = list(map(self._word_ids.ids, texts))
        left = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        others = iter(self._library_ids(left))
        return [next(others) if ids is None else ids for ids in found]

    def quick_ids_and_places(self, text: str, edges: Sequence[int]) -> tuple[bytes, list[int]] | None:
        """Packed ids, and for each of `edges`, rising places in the text, how many of them stand before it. None where
        only `ids_and_places` can tell."""
        return None if self._word_ids is None else self._word_ids.ids_and_places(text, edges)

    def ids_and_places(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        """As `ids`, and for each id where its characters begin and end in the text."""
        for batch in _batches(texts):
            encodings: list[Encoding] = self._backend.encode_batch(batch, add_special_tokens=False)
            for encoding in encodings:
                yield encoding.ids, encoding.offsets

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """How each token reads; together they read as the text. Parts of a character are written as \\xE2."""
        return self._piece_text.pieces(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens included."""
        return self._backend.decode(list(ids), skip_special_tokens=False)

    def token_id(self, text: str) -> int | None:
        """The id of the token that is written `text`."""
        return self._backend.token_to_id(text)

    def end_of_text(self) -> int:
        """Raises Problem when the model has no token for it."""
        if self.eos_id is None:
            raise Problem(
                self.name,
                "names no end-of-text token, so the model could not learn where to stop",
                "Name its eos_token in tokenizer_config.json.",
            )
        return self.eos_id

    def _library_ids(self, texts: Sequence[str]) -> list[bytes]:
        return [
            packed(encoding.ids)
            for batch in _batches(texts)
            for encoding in self._backend.encode_batch_fast(batch, add_special_tokens=False)
        ]

    def _find_frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        bare = self._backend.encode("a", add_special_tokens=False).ids
        dressed = self._backend.encode("a").ids
        places = range(len(dressed) - len(bare) + 1)
        at = next(at for at in places if dressed[at : at + len(bare)] == bare)
        return tuple(dressed[:at]), tuple(dressed[at + len(bare) :])

    def _hash(self, description: Description) -> str:
        decides = [
            hashlib.sha256(description.backend.encode()).hexdigest(),
            sorted(self.named.items()),
            sorted(self.special.items()),
            self.eos_id,
            self.chat_template,
            self.tool_template,
            self.embedding_rows,
        ]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def _backend(text: str) -> Tokenizer:
    made = Tokenizer.from_str(text)
    made.no_truncation()
    made.no_padding()
    made.encode_special_tokens = False
    return made


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in runs that the tokenizer can take at once."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
