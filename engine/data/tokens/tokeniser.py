"""Contents to token ids, with the span of every answer: uncut, for whatever length and choice of targets comes later.

Text is tokenised in pieces cut where answers begin and end, so that a prompt has exactly the tokens it will have when
the model is asked, and the spans need no guessing. Tokenizers that put a space before whatever they are given
(SentencePiece's dummy prefix) would tell the pieces apart; with those the text is tokenised whole, and a token belongs
to an answer when it holds any character of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain, islice, pairwise

import numpy as np
from numpy.typing import NDArray

from engine.data.contents import Content, Conversation, Feedback, Labelled, PlainText, Preference, Similar, Unusable
from engine.data.tokens.encoded import HOLDS_SPECIAL, HOLDS_UNKNOWN, Encoded, Tokenised
from engine.data.tokens.rendering import ChatTemplate, Rendered
from engine.data.tokens.text_tokenizer import TextTokenizer
from profiles.problem import Problem, printable

# Long text is tokenised in sections of about this size.
_SECTION_CHARACTERS = 2**16
_WORD_BEGINS = re.compile(r"(?<=\S)(?=\s)")
_SPACE_BETWEEN = re.compile(r"(?<=\S) (?=\S)")
_UNKNOWN_SHARE = 0.01


class Tokeniser:
    """Tokenises contents for one model. Raises Problem when its chat template is no valid Jinja."""

    def __init__(self, tokenizer: TextTokenizer):
        self._tokenizer = tokenizer
        self._template = None if tokenizer.chat_template is None else ChatTemplate(tokenizer)
        self._is_cut_freely = tokenizer.ids(["a\nb"])[0] == [*chain(*tokenizer.ids(["a\n", "b"]))]
        self._puts_space_first = tokenizer.ids(["a b"])[0] == [*chain(*tokenizer.ids(["a", "b"]))]
        specials = sorted({*tokenizer.special.values()} - {""}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, specials))) if specials else None
        # Most texts hold none of these, which is found out much faster than that they hold no special token.
        self._special_starts = sorted({text[:2] for text in specials})
        rows = tokenizer.embedding_rows
        self._ids_end = rows if rows is not None and tokenizer.vocabulary > rows else None

    def tokenise(self, contents: Sequence[Content]) -> list[Tokenised | Unusable]:
        """What becomes of each; an Unusable says why a row cannot be learnt from. Many at once are faster.

        Raises Problem for conversations when there is no chat template.
        """
        rendered: list[tuple[Rendered, ...] | Unusable] = []
        for content in contents:
            try:
                rendered.append(self._render(content))
            except Unusable as reason:
                rendered.append(reason)
        encoded = self._encode([text for texts in rendered if not isinstance(texts, Unusable) for text in texts])
        results: list[Tokenised | Unusable] = []
        for content, texts in zip(contents, rendered, strict=True):
            if isinstance(texts, Unusable):
                results.append(texts)
                continue
            sequences = tuple(islice(encoded, len(texts)))
            fault = self._fault(content, sequences)
            results.append(self._result(content, texts, sequences) if fault is None else Unusable(fault))
        return results

    def _render(self, content: Content) -> tuple[Rendered, ...]:
        match content:
            case Conversation():
                return (self._conversation(content),)
            case Feedback():
                return (self._last_answer(content.conversation),)
            case Preference():
                return self._last_answer(content.chosen), self._last_answer(content.rejected)
            case PlainText():
                return (Rendered(content.text, ((0, len(content.text)),), lacks_start=True, lacks_stop=True),)
            case Labelled():
                return (Rendered(content.text, (), lacks_frame=True),)
            case Similar():
                return tuple(Rendered(text, (), lacks_frame=True) for text in content.texts())

    def _conversation(self, conversation: Conversation) -> Rendered:
        if self._template is not None:
            return self._template.render(conversation)
        if conversation.is_pair:
            return _without_template(*conversation.texts())
        raise Problem(
            self._tokenizer.name,
            "has no chat template, and the data are conversations",
            "Choose one that finetui knows (data.chat_template, such as chatml), use the instruction-tuned version of "
            "the model, or put its chat_template.jinja into the folder.",
        )

    def _last_answer(self, conversation: Conversation) -> Rendered:
        rendered = self._conversation(conversation)
        return replace(rendered, answers=rendered.answers[-1:])

    def _encode(self, texts: Sequence[Rendered]) -> Iterator[Encoded]:
        if self._is_cut_freely:
            cuts = [_cuts(text) for text in texts]
            pieces = [text.text[a:b] for text, at in zip(texts, cuts, strict=True) for a, b in pairwise(at)]
            ids = iter(self._tokenizer.packed_ids(pieces))
            for text, edges in zip(texts, cuts, strict=True):
                yield self._finish(text, *_join(text, edges, list(islice(ids, len(edges) - 1))))
        else:
            quick = list(map(self._quickly, texts))
            others = self._by_places([text for text, found in zip(texts, quick, strict=True) if found is None])
            for text, found in zip(texts, quick, strict=True):
                yield self._finish(text, *(found or next(others)))

    def _quickly(self, text: Rendered) -> tuple[NDArray[np.int32], list[tuple[int, int]]] | None:
        edges = sorted({edge for answer in text.answers for edge in answer})
        found = self._tokenizer.quick_ids_and_places(text.text, edges)
        if found is None:
            return None
        at = dict(zip(edges, found[1], strict=True))
        return np.frombuffer(found[0], np.int32), [(at[begins], at[ends]) for begins, ends in text.answers]

    def _by_places(self, texts: Sequence[Rendered]) -> Iterator[tuple[NDArray[np.int32], list[tuple[int, int]]]]:
        """The ids of whole texts, and the spans of those that hold any character of each answer."""
        sections = [_sections(text.text) if self._puts_space_first else [(0, len(text.text))] for text in texts]
        pieces = [text.text[a:b] for text, at in zip(texts, sections, strict=True) for a, b in at]
        found = self._tokenizer.ids_and_places(pieces)
        for text, at in zip(texts, sections, strict=True):
            token_ids: list[int] = []
            places: list[tuple[int, int]] = []
            # The sections come first, so that the next text's tokens stay where they are.
            for (begins, _), (some, where) in zip(at, found, strict=False):
                token_ids += some
                places += [(begins + first, begins + last) for first, last in where] if begins else where
            yield np.asarray(token_ids, dtype=np.int32), _token_spans(text, places)

    def _finish(self, text: Rendered, ids: NDArray[np.int32], spans: list[tuple[int, int]]) -> Encoded:
        if text.lacks_frame:
            ids = _joined(self._tokenizer.leading_ids, ids, self._tokenizer.trailing_ids)
        if text.lacks_start:
            shift = len(self._tokenizer.leading_ids)
            ids = _joined(self._tokenizer.leading_ids, ids)
            spans = [(begins + shift, ends + shift) for begins, ends in spans]
        if text.lacks_stop and not (len(ids) and ids[-1] == self._tokenizer.eos_id):
            ids = _joined(ids, (self._tokenizer.end_of_text(),))
            spans[-1] = (spans[-1][0], len(ids))
        prompt_tokens = spans[-1][0] if spans else len(ids)
        return Encoded(ids, tuple(spans), prompt_tokens)

    def _fault(self, content: Content, sequences: Sequence[Encoded]) -> str | None:
        """Why nothing can be learnt from these sequences, whatever their length."""
        for sequence in sequences:
            if self._ids_end is not None and len(sequence) and (largest := int(sequence.ids.max())) >= self._ids_end:
                text = printable(self._tokenizer.pieces([largest])[0], 40)
                return f'has the token "{text}" ({largest:,}), beyond the {self._ids_end:,} rows of the embedding'
            if isinstance(content, Labelled | Similar):
                if len(sequence) == len(self._tokenizer.leading_ids) + len(self._tokenizer.trailing_ids):
                    return "has a text of no tokens: there is nothing to learn"
            elif not any(ends > max(begins, 1) for begins, ends in sequence.answers):
                what = "a text of one token" if isinstance(content, PlainText) else "no token of an answer"
                return f"has {what}: there is nothing to learn"
        if isinstance(content, Preference) and np.array_equal(sequences[0].ids, sequences[1].ids):
            return "has two answers of the same tokens: there is nothing to prefer"
        return None

    def _result(self, content: Content, texts: Sequence[Rendered], sequences: tuple[Encoded, ...]) -> Tokenised:
        labels: tuple[str, ...] = ()
        if isinstance(content, Labelled):
            labels = content.labels
        elif isinstance(content, Feedback):
            labels = ("liked" if content.liked else "disliked",)
        warnings = {warning for text in texts for warning in text.warnings}
        if self._holds_special(content):
            warnings.add(HOLDS_SPECIAL)
        if self._tokenizer.unk_id is not None and any(map(self._is_foreign, sequences)):
            warnings.add(HOLDS_UNKNOWN)
        return Tokenised(
            sequences,
            windows=isinstance(content, PlainText),
            labels=labels,
            altered=tuple(sorted({role for text in texts for role in text.altered})),
            warnings=tuple(sorted(warnings)),
        )

    def _holds_special(self, content: Content) -> bool:
        if self._special is None:
            return False
        together = "\n".join(content.texts())
        for start in self._special_starts:
            if start in together:
                return any(map(self._special.search, content.texts()))
        return False

    def _is_foreign(self, sequence: Encoded) -> bool:
        return int((sequence.ids == self._tokenizer.unk_id).sum()) > _UNKNOWN_SHARE * len(sequence)


def _without_template(question: str, answer: str) -> Rendered:
    """Question and answer as they are, on two lines unless white space already stands between them."""
    is_apart = question[-1:].isspace() or answer[:1].isspace()
    prompt = question if is_apart else f"{question}\n"
    answered = (len(prompt), len(prompt) + len(answer))
    return Rendered(prompt + answer, (answered,), lacks_start=True, lacks_stop=True)


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


def _sections(text: str) -> list[tuple[int, int]]:
    """Where long text may be cut for a tokenizer that puts a space before what it is given: at a space between words,
    which is left out for that."""
    sections, begins = [], 0
    while len(text) - begins > 2 * _SECTION_CHARACTERS:
        found = _SPACE_BETWEEN.search(text, begins + _SECTION_CHARACTERS, begins + 2 * _SECTION_CHARACTERS)
        if found is None:
            break
        sections.append((begins, found.start()))
        begins = found.end()
    return [*sections, (begins, len(text))]


def _join(text: Rendered, cuts: list[int], pieces: list[bytes]) -> tuple[NDArray[np.int32], list[tuple[int, int]]]:
    """The ids of all pieces, and the span of ids of each answer."""
    at = dict(zip(cuts, accumulate((len(piece) // 4 for piece in pieces), initial=0), strict=True))
    return np.frombuffer(b"".join(pieces), np.int32), [(at[begins], at[ends]) for begins, ends in text.answers]


def _joined(*parts: Sequence[int] | NDArray[np.int32]) -> NDArray[np.int32]:
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


def _token_spans(text: Rendered, places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The span of ids that hold any character of each answer."""
    begins: NDArray[np.int64] = np.asarray([first for first, _ in places], dtype=np.int64)
    ends: NDArray[np.int64] = np.asarray([last for _, last in places], dtype=np.int64)
    return [
        (int(np.searchsorted(ends, first, side="right")), int(np.searchsorted(begins, last, side="left")))
        for first, last in text.answers
    ]
