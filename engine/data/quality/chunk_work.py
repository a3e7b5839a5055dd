"""What each process of the crew does for a report: one chunk of rows becomes its facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.data.contents import Content, Labelled, PlainText, Unusable, content_digest
from engine.data.files import Chunk, read_chunk
from engine.data.personal.finder import Finder, find_personal
from engine.data.personal.found import MASKS
from engine.data.personal.presidio import presidio_finders
from engine.data.quality.languages import language_of
from engine.data.quality.leaks import LeakIndex
from engine.data.quality.options import MISSING, ReportOptions
from engine.data.quality.similar import signatures_of_words
from engine.data.quality.texts import answers, compared_texts, excerpt, texts_digest
from engine.data.quality.words import hashed_words
from engine.data.rows import RejectedRow, Row, in_batches
from engine.data.shapes import Reading
from engine.data.shapes.recogniser import Recogniser
from engine.data.shapes.values import value_at
from engine.data.source import Source
from profiles.problem import printable

if TYPE_CHECKING:
    from engine.data.tokens.text_tokenizer import TextTokenizer
    from engine.data.tokens.tokeniser import Tokeniser

TASK = "engine.data.quality.chunk_work:examiner"

PLACES_KEPT = 5
EXCERPT_BYTES = 160
# Values of a column that is as good as a text: its balance says nothing, and a list of them all would fill the memory.
DISTINCT_VALUES = 2_000
_BATCH_ROWS = 512
_BATCH_CHARACTERS = 2**20
_VALUE_CHARACTERS = 60
_AROUND_CHARACTERS = 24


@dataclass(frozen=True, slots=True)
class Setup:
    sources: tuple[Source, ...]
    readings: tuple[Reading, ...]
    options: ReportOptions
    tokenizer: TextTokenizer | None
    """What lengths are measured with; None counts characters."""
    leak_index: Path | None
    language_rows_apart: int = 1
    """Of so many rows the language of one is found out, which takes a third of all time."""


@dataclass(frozen=True, slots=True)
class Work:
    source: int
    chunk: Chunk
    most_rows: int | None
    """No more rows of the chunk are read than this."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place by its number in its source, until the file it is in is known."""

    line: int
    excerpt: str


@dataclass(slots=True)
class ChunkFacts:
    """What one chunk says; the arrays have one entry for each row that was examined."""

    rows: int = 0
    rejected: list[RejectedRow] = field(default_factory=list)
    """The first ones."""
    reasons: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    language_spots: dict[str, list[Spot]] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    attributes: dict[str, Counter[str]] = field(default_factory=dict)
    personal: Counter[str] = field(default_factory=Counter)
    personal_kind_rows: Counter[str] = field(default_factory=Counter)
    personal_rows: int = 0
    personal_spots: dict[str, list[Spot]] = field(default_factory=dict)
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    """line int64, digest uint64, answer uint64 (0: none), length int32, divided bool, leak int32, signature
    (rows, 64) uint16, excerpt bytes."""


def examiner(setup: Setup) -> Callable[[Work], ChunkFacts]:
    return _Examiner(setup).examine


class _Examiner:
    def __init__(self, setup: Setup):
        self._setup = setup
        options = setup.options
        self._recognisers = [
            Recogniser(source, reading) for source, reading in zip(setup.sources, setup.readings, strict=True)
        ]
        self._leaks = LeakIndex.load(setup.leak_index) if setup.leak_index else None
        self._more: tuple[Finder, ...] = presidio_finders() if options.personal else ()
        self._tokeniser: Tokeniser | None = None
        if setup.tokenizer is not None:
            from engine.data.tokens.tokeniser import Tokeniser

            self._tokeniser = Tokeniser(setup.tokenizer)

    def examine(self, work: Work) -> ChunkFacts:
        source = self._setup.sources[work.source]
        facts, parts = ChunkFacts(), _Parts()
        for batch in in_batches(islice(read_chunk(source, work.chunk), work.most_rows), _BATCH_ROWS, _BATCH_CHARACTERS):
            facts.rows += len(batch)
            self._examine(batch, work, facts, parts)
        facts.columns = parts.columns()
        return facts

    def _examine(self, batch: list[Row | RejectedRow], work: Work, facts: ChunkFacts, parts: _Parts) -> None:
        source, recogniser = self._setup.sources[work.source], self._recognisers[work.source]
        understood: list[tuple[Row, Content]] = []
        for row in batch:
            if isinstance(row, RejectedRow):
                _reject(facts, row)
                continue
            try:
                understood.append((row, recogniser.recognise(row.value).content))
            except Unusable as reason:
                _reject(facts, work.chunk.rejection(source, row, str(reason)))
        lengths = self._lengths([content for _, content in understood])
        kept = []
        for (row, content), length in zip(understood, lengths, strict=True):
            if isinstance(length, Unusable):
                _reject(facts, work.chunk.rejection(source, row, str(length)))
                continue
            kept.append((row, content, length))
            self._tally(row, content, facts)
        if kept:
            self._measure(kept, parts)

    def _lengths(self, contents: list[Content]) -> list[int | Unusable]:
        """Of the longest sequence of each, in tokens where there is a tokenizer."""
        if self._tokeniser is None:
            return [sum(map(len, content.texts())) for content in contents]
        return [
            each if isinstance(each, Unusable) else max(map(len, each.sequences))
            for each in self._tokeniser.tokenise(contents)
        ]

    def _tally(self, row: Row, content: Content, facts: ChunkFacts) -> None:
        options = self._setup.options
        if isinstance(content, Labelled):
            labels = [printable(label, _VALUE_CHARACTERS) for label in content.labels] or ["(none)"]
            count_values(facts.labels, dict.fromkeys(labels, 1))
        for name in options.attributes:
            value = value_at(row.value, name)
            text = MISSING if value is None else printable(value, _VALUE_CHARACTERS)
            count_values(facts.attributes.setdefault(name, Counter()), {text: 1})
        # Rows are chosen by their content, so that other rows change nothing.
        if options.languages and content_digest(content) % self._setup.language_rows_apart == 0:
            language = language_of("\n".join(compared_texts(content)))
            facts.languages[language] += 1
            spots = facts.language_spots.setdefault(language, [])
            if len(spots) < PLACES_KEPT:
                spots.append(Spot(row.line, excerpt(content)))
        if options.personal:
            self._find_personal(row, content, facts)

    def _find_personal(self, row: Row, content: Content, facts: ChunkFacts) -> None:
        kinds: set[str] = set()
        for text in content.texts():
            for found in find_personal(text, self._more):
                facts.personal[found.kind] += 1
                spots = facts.personal_spots.setdefault(found.kind, [])
                if found.kind not in kinds and len(spots) < PLACES_KEPT:
                    before = text[max(0, found.start - _AROUND_CHARACTERS) : found.start]
                    after = text[found.end : found.end + _AROUND_CHARACTERS]
                    spots.append(Spot(row.line, printable(f"…{before}{MASKS[found.kind]}{after}…", 120)))
                kinds.add(found.kind)
        facts.personal_kind_rows.update(kinds)
        facts.personal_rows += bool(kinds)

    def _measure(self, kept: list[tuple[Row, Content, int]], parts: _Parts) -> None:
        """One entry of every column for each row."""
        texts = [compared_texts(content) for _, content, _ in kept]
        parts.add("line", [row.line for row, _, _ in kept])
        parts.add("digest", [content_digest(content) for _, content, _ in kept])
        answered = [answers(content) for _, content, _ in kept]
        parts.add("answer", [texts_digest(each) if each else 0 for each in answered])
        parts.add("length", [length for _, _, length in kept])
        parts.add("divided", [isinstance(content, PlainText) for _, content, _ in kept])
        short = [excerpt(content).encode(errors="backslashreplace") for _, content, _ in kept]
        parts.add("excerpt", short)
        if self._leaks is not None:
            parts.add("leak", self._leaks.leaks(texts))
        if self._setup.options.near_duplicates:
            words, offsets = hashed_words(["\n".join(each) for each in texts])
            parts.add("signature", signatures_of_words(words, offsets))


COLUMNS: dict[str, Any] = {
    "line": np.int64,
    "digest": np.uint64,
    "answer": np.uint64,
    "length": np.int32,
    "divided": np.bool_,
    "excerpt": np.dtype(f"S{EXCERPT_BYTES}"),
    "leak": np.int32,
    "signature": np.uint16,
}


class _Parts:
    """The columns of a chunk as they grow."""

    def __init__(self) -> None:
        self._parts: dict[str, list[NDArray[Any]]] = {}

    def add(self, name: str, values: Any) -> None:
        self._parts.setdefault(name, []).append(np.asarray(values, COLUMNS[name]))

    def columns(self) -> dict[str, NDArray[Any]]:
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}


def _reject(facts: ChunkFacts, row: RejectedRow) -> None:
    if len(facts.rejected) < PLACES_KEPT:
        facts.rejected.append(row)
    count_values(facts.reasons, {row.reason: 1})


def count_values(counter: Counter[str], values: Mapping[str, int]) -> None:
    """Adds to `counter`; beyond DISTINCT_VALUES different ones, new ones count as "" together."""
    for value, count in values.items():
        counter[value if value in counter or len(counter) < DISTINCT_VALUES else ""] += count
