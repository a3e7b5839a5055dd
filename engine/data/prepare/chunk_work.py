"""What each process of the crew does: one chunk of a source becomes one shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.data.contents import (
    Content,
    Conversation,
    Feedback,
    Labelled,
    Preference,
    Recognised,
    Unusable,
    content_digest,
    kind_of,
    text_digest,
)
from engine.data.files import Chunk, read_chunk
from engine.data.prepare.recipe import Recipe
from engine.data.prepare.shard_writing import ShardRow, write_shard
from engine.data.prepare.shards import ShardFacts, ShardReject
from engine.data.prepare.split import split_units
from engine.data.rows import RejectedRow, Row, in_batches
from engine.data.shapes.recogniser import Recogniser
from engine.data.source import Source
from engine.data.tokens.encoded import Tokenised
from engine.data.tokens.tokeniser import Tokeniser
from engine.run.directory import disk_problem
from profiles.problem import printable

TASK = "engine.data.prepare.chunk_work:shard_maker"

# Rows that are recognised, tokenised and kept as objects at once. A tokenizer takes some 200 bytes a character.
_BATCH_ROWS = 512
_BATCH_CHARACTERS = 2**18
# Held-out rows can be answered and shown, which takes their texts: kept of the rows that are held out first, so that
# the first thousand of all are among the first thousand of every shard.
_MOST_SAMPLES = 1024
_FEWEST_SAMPLES = 128
# Names of unused fields that are kept; a row may have any number.
_UNUSED_NAMES = 100


@dataclass(frozen=True, slots=True)
class ChunkWork:
    """A chunk to do, by which of the recipes, and where its shard goes."""

    recipe: int
    chunk: Chunk
    path: Path


def shard_maker(recipes: Sequence[Recipe]) -> Callable[[ChunkWork], ShardFacts]:
    """The function that makes shards by `recipes`. It raises Problem for a source that changed, a disk that is full,
    and a tokenizer that cannot serve."""
    workers: dict[int, _Worker] = {}

    def make(work: ChunkWork) -> ShardFacts:
        if work.recipe not in workers:
            workers[work.recipe] = _Worker(recipes[work.recipe])
        return workers[work.recipe].make(work)

    return make


class _Worker:
    def __init__(self, recipe: Recipe):
        self._recipe = recipe
        self._recogniser = Recogniser(recipe.source, recipe.reading, recipe.group_by, recipe.stratify_by)
        self._tokeniser = Tokeniser(recipe.tokenizer)
        self._redactor: Any = None
        self._leaks: Any = None
        if recipe.personal != "leave":
            from engine.data.personal.redaction import Redactor

            self._redactor = Redactor(recipe.personal, bytes.fromhex(recipe.personal_key))
        if recipe.leak_index is not None:
            from engine.data.quality.leaks import LeakIndex

            self._leaks = LeakIndex.load(recipe.leak_index)

    def make(self, work: ChunkWork) -> ShardFacts:
        recipe, chunk = self._recipe, work.chunk
        shard = _ShardInMaking(recipe.source, chunk)
        position = 0
        for batch in in_batches(read_chunk(recipe.source, chunk), _BATCH_ROWS, _BATCH_CHARACTERS):
            self._add(shard, list(enumerate(batch, position)))
            position += len(batch)
        columns: dict[str, NDArray] = {}
        if recipe.with_signatures:
            columns["signature"] = np.concatenate([np.zeros((0, 64), np.uint16), *shard.signatures])
        if recipe.leak_index is not None:
            columns["leak"] = np.concatenate([np.zeros(0, np.int64), *shard.leaks]).astype(np.int32)
        try:
            return write_shard(
                work.path,
                shard.rows,
                shard.rejects,
                shard.samples(recipe.split_seed, recipe.sampled_share),
                columns=columns,
                several_labels=shard.several_labels,
                unused=shard.unused,
                warnings=shard.warnings,
                personal=shard.personal,
            )
        except OSError as error:
            raise disk_problem(work.path.parent, error) from None

    def _add(self, shard: _ShardInMaking, batch: list[tuple[int, Row | RejectedRow]]) -> None:
        understood: list[tuple[int, Row, Recognised, Content]] = []
        for position, row in batch:
            if isinstance(row, RejectedRow):
                shard.reject(position, row)
                continue
            try:
                recognised = self._recogniser.recognise(row.value)
            except Unusable as reason:
                shard.reject_row(position, row, str(reason))
                continue
            content = recognised.content
            if self._redactor is not None:
                content, found = self._redactor.apply(content)
                shard.personal.update(found)
            understood.append((position, row, recognised, content))
        tokenised = self._tokeniser.tokenise([content for *_, content in understood])
        kept: list[Content] = []
        for (position, row, recognised, content), result in zip(understood, tokenised, strict=True):
            if isinstance(result, Unusable):
                shard.reject_row(position, row, str(result))
            else:
                shard.add(position, row, recognised, content, result)
                kept.append(content)
        if self._recipe.with_signatures:
            from engine.data.quality.similar import signatures
            from engine.data.quality.texts import compared_text

            shard.signatures.append(signatures([compared_text(content) for content in kept]))
        if self._leaks is not None:
            from engine.data.quality.texts import compared_texts

            shard.leaks.append(self._leaks.leaks([compared_texts(content) for content in kept]))


@dataclass(slots=True)
class _ShardInMaking:
    source: Source
    chunk: Chunk
    rows: list[ShardRow] = field(default_factory=list)
    rejects: list[ShardReject] = field(default_factory=list)
    signatures: list[NDArray] = field(default_factory=list)
    leaks: list[NDArray] = field(default_factory=list)
    several_labels: bool = False
    unused: set[str] = field(default_factory=set)
    warnings: Counter[str] = field(default_factory=Counter)
    personal: Counter[str] = field(default_factory=Counter)
    answered: list[Conversation | None] = field(default_factory=list)
    """What can be asked and answered of each of the rows."""

    def add(self, position: int, row: Row, recognised: Recognised, content: Content, tokenised: Tokenised) -> None:
        digest = content_digest(content)
        group, stratum = recognised.groups
        sequences = tokenised.sequences
        piece, line = self._place(row)
        self.rows.append(
            ShardRow(
                position=position,
                piece=piece,
                line=line,
                digest=digest,
                kind=kind_of(content),
                shape=recognised.shape,
                windows=tokenised.windows,
                # Of a text in parts every token is learnt, wherever the tokenizer's leading ones end.
                sequences=[
                    (each.ids, ((0, len(each.ids)),) if tokenised.windows else each.answers) for each in sequences
                ],
                prompt_tokens=sequences[0].prompt_tokens,
                labels=_labels(content),
                altered=tokenised.altered,
                group=0 if group is None else text_digest(group),
                stratum=stratum or "",
            )
        )
        self.several_labels |= isinstance(content, Labelled) and content.several
        if len(self.unused) < _UNUSED_NAMES:
            self.unused.update(recognised.unused)
        self.warnings.update(tokenised.warnings)
        self.answered.append(_answered(content))

    def reject(self, position: int, row: RejectedRow) -> None:
        pieces = self.chunk.pieces
        piece = max(
            at
            for at, each in enumerate(pieces)
            if str(each.path_in(self.source)) == row.path and (each.first_line <= row.line or len(pieces) == 1)
        )
        line = row.line - pieces[piece].first_line
        self.rejects.append(ShardReject(position, piece, line, row.reason, row.excerpt, row.unit))

    def reject_row(self, position: int, row: Row, reason: str) -> None:
        piece, line = self._place(row)
        unit = self.chunk.pieces[piece].layout.unit
        self.rejects.append(ShardReject(position, piece, line, reason, printable(row.value), unit))

    def _place(self, row: Row) -> tuple[int, int]:
        """The piece of the chunk that `row` is in, and its number less that of the piece's first row."""
        pieces = self.chunk.pieces
        at = next(at for at in reversed(range(len(pieces))) if row.line > pieces[at].lines_before)
        while at and row.line - pieces[at].lines_before < pieces[at].first_line:
            at -= 1  # an earlier piece of the same file
        return at, row.line - pieces[at].lines_before - pieces[at].first_line

    def samples(self, split_seed: int, share: float) -> dict[int, Any]:
        """The texts of the rows that are held out first, by position in `rows`."""
        units = split_units(
            np.array([row.digest for row in self.rows], dtype=np.uint64),
            np.array([row.group for row in self.rows], dtype=np.uint64),
            split_seed,
        )
        most = min(_MOST_SAMPLES, max(_FEWEST_SAMPLES, round(share * len(self.rows))))
        samples: dict[int, Any] = {}
        for at in np.argsort(units, kind="stable").tolist():
            if (conversation := self.answered[at]) is not None and len(samples) < most:
                samples[at] = [[each.role, each.content, each.learnt, each.more] for each in conversation.messages]
        return samples


def _labels(content: Content) -> tuple[str, ...]:
    if isinstance(content, Feedback):
        return ("liked" if content.liked else "disliked",)
    return content.labels if isinstance(content, Labelled) else ()


def _answered(content: Content) -> Conversation | None:
    """What a model can be asked of the row, and should answer."""
    if isinstance(content, Preference):
        return content.chosen
    return content if isinstance(content, Conversation) else None
