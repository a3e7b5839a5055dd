"""Rows to token ids, with a mark on every token that is learnt.

Text is tokenised in pieces cut where answers begin and end, so that a prompt has exactly the tokens it will
have when the model is asked, and the marks need no guessing. Tokenizers that put a space before whatever
they are given (SentencePiece's dummy prefix) would tell the pieces apart; with those the text is tokenised
whole, and a token is learnt when it holds any character of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, islice, pairwise
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.data.chat_template import ChatTemplate, Rendered
from engine.data.contents import Conversation, PlainText, Role, Unusable
from profiles.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TrainOn = Literal["answers", "last_answer", "everything"]
_Item = TypeVar("_Item")

# A tokenizer takes some 200 bytes for each character that it works on at once.
_BATCH_CHARACTERS = 2**20
# Plain text is tokenised in sections of about this size.
_SECTION_CHARACTERS = 2**16
_WORD_BEGINS = re.compile(r"(?<=\S)(?=\s)")


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """Token ids and, for each, whether it is a target: predicted from the tokens before it, so never the
    first."""

    input_ids: NDArray[np.int32]
    trained: NDArray[np.bool_]
    row: int
    """Position of the row among all rows of all files, from 0."""

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Tokenised:
    """What became of one row."""

    examples: tuple[Example, ...]
    """One, or for plain text longer than `sequence_length` as many as hold it."""
    is_cut: bool
    """Whether tokens were left out at the end."""
    prompt_ids: NDArray[np.int32] | None
    """What the model is given to produce the last answer; None for plain text, and where no answer is left."""
    altered: tuple[Role, ...] = ()
    """Roles of messages whose text the chat template left out or changed."""


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """A row before it is cut to length."""

    ids: NDArray[np.int32]
    trained: NDArray[np.bool_]
    prompt_tokens: int
    """Tokens before the last answer."""


class Tokeniser:
    """Tokenises rows for one model. Lengths are in tokens.

    Raises Problem when the tokenizer cannot serve: no fast implementation, an invalid chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sequence_length: int, train_on: TrainOn):
        if not tokenizer.is_fast:
            raise Problem(
                f"{tokenizer.name_or_path}",
                "has no tokenizer.json",
                "Use a model folder that has a tokenizer.json.",
            )
        self._tokenizer = tokenizer
        self._sequence_length = sequence_length
        self._train_on = train_on
        self._template = ChatTemplate(tokenizer) if tokenizer.chat_template else None
        self._leading_ids = self._find_leading_ids()
        self._is_cut_freely = self._ids(["a\nb"])[0] == [*chain(*self._ids(["a\n", "b"]))]
        # What a row that is cut at `sequence_length` can hold at most, with a token to spare.
        longest_token = max(map(len, tokenizer.get_vocab()))
        self._most_characters = (sequence_length + 1) * longest_token

    @property
    def has_chat_template(self) -> bool:
        return self._template is not None

    def tokenise(self, rows: Sequence[tuple[int, Conversation | PlainText]]) -> list[Tokenised | Unusable]:
        """The rows, each with its position, in their order; an Unusable says why a row cannot be learnt from.

        Many at once are faster than one by one. Raises Problem for chat rows when there is no chat template.
        """
        rendered: list[Rendered | Unusable] = []
        for _, content in rows:
            try:
                rendered.append(self._render(content))
            except Unusable as reason:
                rendered.append(reason)
        encoded = iter(self._encode([each for each in rendered if isinstance(each, Rendered)]))
        results: list[Tokenised | Unusable] = []
        for (row, content), text in zip(rows, rendered, strict=True):
            if isinstance(text, Unusable):
                results.append(text)
            elif isinstance(content, PlainText):
                results.append(self._windows(row, next(encoded)))
            else:
                results.append(self._cut(row, next(encoded), text.altered))
        return results

    def _render(self, content: Conversation | PlainText) -> Rendered:
        if isinstance(content, PlainText):
            whole = (0, len(content.text))
            return Rendered(content.text, (whole,), lacks_start=True, lacks_stop=True)
        if self._template is not None:
            return _shortened(self._template.render(content.messages), self._most_characters)
        if content.is_pair:
            return _shortened(_without_template(*content.texts()), self._most_characters)
        raise Problem(
            f"{self._tokenizer.name_or_path}",
            "has no chat template, and the data are conversations",
            "Use the instruction-tuned version of the model, or put its chat_template.jinja into the folder.",
        )

    def _encode(self, texts: Sequence[Rendered]) -> Iterator[_Encoded]:
        if self._is_cut_freely:
            cuts = [_cuts(text) for text in texts]
            ids = iter(
                self._ids([text.text[a:b] for text, at in zip(texts, cuts, strict=True) for a, b in pairwise(at)])
            )
            for text, edges in zip(texts, cuts, strict=True):
                yield self._finish(text, *_join(text, edges, list(islice(ids, len(edges) - 1))))
        else:
            for batch in _batches(texts, [len(text.text) for text in texts]):
                whole = self._call([text.text for text in batch], return_offsets_mapping=True)
                for text, ids_, offsets in zip(batch, whole["input_ids"], whole["offset_mapping"], strict=True):
                    yield self._finish(text, ids_, _token_spans(text, offsets))

    def _finish(self, text: Rendered, ids: list[int], spans: list[tuple[int, int]]) -> _Encoded:
        if text.lacks_start:
            shift = len(self._leading_ids)
            ids = [*self._leading_ids, *ids]
            spans = [(begins + shift, ends + shift) for begins, ends in spans]
        if text.lacks_stop and ids[-1:] != [self._tokenizer.eos_token_id]:
            ids = [*ids, self._end_of_text()]
            spans[-1] = (spans[-1][0], len(ids))
        learnt = np.zeros(len(ids), dtype=np.bool_)
        if self._train_on == "everything":
            learnt[:] = True
        for begins, ends in spans if self._train_on == "answers" else spans[-1:]:
            learnt[begins:ends] = True
        learnt[:1] = False
        return _Encoded(np.asarray(ids, dtype=np.int32), learnt, spans[-1][0])

    def _cut(self, row: int, whole: _Encoded, altered: tuple[Role, ...]) -> Tokenised | Unusable:
        limit = self._sequence_length
        ids, trained = whole.ids[:limit], whole.trained[:limit]
        if not trained.any():
            return Unusable(
                f"has its answer wholly cut off at {limit:,} tokens; a larger data.sequence_length would keep it"
            )
        prompt_ids = ids[: whole.prompt_tokens] if whole.prompt_tokens < limit else None
        return Tokenised((Example(ids, trained, row),), len(whole.ids) > limit, prompt_ids, altered)

    def _windows(self, row: int, whole: _Encoded) -> Tokenised | Unusable:
        if not whole.trained.any():
            return Unusable("has a text of one token: there is nothing to learn")
        # Each window begins with the last token of the one before, so that every token but the first is
        # a target exactly once.
        length, examples = self._sequence_length, []
        for begins in range(0, len(whole.ids) - 1, length - 1):
            trained = whole.trained[begins : begins + length].copy()
            trained[0] = False
            examples.append(Example(whole.ids[begins : begins + length], trained, row))
        return Tokenised(tuple(examples), False, None)

    def _find_leading_ids(self) -> tuple[int, ...]:
        """The ids that this tokenizer puts in front of plain text, such as a beginning-of-text token."""
        bare, dressed = self._ids(["a"])[0], self._tokenizer("a")["input_ids"]
        at = next(at for at in range(len(dressed)) if dressed[at : at + len(bare)] == bare)
        return tuple(dressed[:at])

    def _end_of_text(self) -> int:
        if self._tokenizer.eos_token_id is None:
            raise Problem(
                f"{self._tokenizer.name_or_path}",
                "names no end-of-text token, so the model could not learn where to stop",
                "Name its eos_token in tokenizer_config.json.",
            )
        return self._tokenizer.eos_token_id

    def _ids(self, texts: list[str]) -> list[list[int]]:
        batches = _batches(texts, list(map(len, texts)))
        return [ids for batch in batches for ids in self._call(batch)["input_ids"]]

    def _call(self, texts: list[str], **options: bool) -> dict[str, list]:
        return self._tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **options,
        )


def _batches(items: Sequence[_Item], characters: Sequence[int]) -> Iterator[list[_Item]]:
    """The items in runs that the tokenizer can take at once."""
    batch: list[_Item] = []
    total = 0
    for item, size in zip(items, characters, strict=True):
        batch.append(item)
        total += size
        if total >= _BATCH_CHARACTERS:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _without_template(question: str, answer: str) -> Rendered:
    """Question and answer as they are, on two lines unless white space already stands between them."""
    is_apart = question[-1:].isspace() or answer[:1].isspace()
    prompt = question if is_apart else f"{question}\n"
    answered = (len(prompt), len(prompt) + len(answer))
    return Rendered(prompt + answer, (answered,), lacks_start=True, lacks_stop=True)


def _shortened(text: Rendered, characters: int) -> Rendered:
    """The text without an end that would be cut off as tokens anyway."""
    if len(text.text) <= characters:
        return text
    answers = tuple((min(begins, characters), min(ends, characters)) for begins, ends in text.answers)
    return replace(text, text=text.text[:characters], answers=answers)


def _cuts(text: Rendered) -> list[int]:
    """Where the text is cut: at its ends, at those of its answers, and before a word in every long section."""
    edges = sorted({0, len(text.text), *(edge for answer in text.answers for edge in answer)})
    cuts = edges[:1]
    for edge in edges[1:]:
        while edge - cuts[-1] > 2 * _SECTION_CHARACTERS:
            latest = cuts[-1] + 2 * _SECTION_CHARACTERS
            word = _WORD_BEGINS.search(text.text, cuts[-1] + _SECTION_CHARACTERS, latest)
            cuts.append(word.start() if word else latest)
        cuts.append(edge)
    return cuts


def _join(text: Rendered, cuts: list[int], pieces: list[list[int]]) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of all pieces, and the span of ids of each answer."""
    at = dict(zip(cuts, accumulate(map(len, pieces), initial=0), strict=True))
    return list(chain.from_iterable(pieces)), [(at[begins], at[ends]) for begins, ends in text.answers]


def _token_spans(text: Rendered, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The span of ids that hold any character of each answer."""
    begins = np.asarray([first for first, _ in offsets])
    ends = np.asarray([last for _, last in offsets])
    return [
        (int(np.searchsorted(ends, first, side="right")), int(np.searchsorted(begins, last, side="left")))
        for first, last in text.answers
    ]
