"""The files of a run as token examples: what is trained on, what is held out, what was set aside and why.

Every row of every file is trained on, held out or rejected, so the counts of a source add up to its rows.
Which rows are held out depends on their content and the seed alone: copies of a row never stand on both
sides, and rows that are added later do not move the others.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.data.contents import Conversation, Message, PlainText, Recognised, Unusable
from engine.data.read import RowReader, read_rows
from engine.data.rows import RejectedRow, Row, refusal, shown
from engine.data.shapes import recognise
from engine.data.tokenise import Example, Tokenised, Tokeniser
from engine.run.directory import write_atomically
from engine.spec import DataSection
from profiles.problem import printable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH_ROWS = 512


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRow:
    """A held-out row that can be answered: what the model is asked and what it should say."""

    row: int
    """Position of the row among all rows of all files, from 0."""
    prompt_messages: tuple[Message, ...]
    """All that comes before the last answer."""
    prompt_ids: NDArray[np.int32]
    """The prompt as the model gets it, ready to generate from."""
    expected: str
    """The last answer."""

    @property
    def prompt_text(self) -> str:
        """The last thing asked, for people."""
        return self.prompt_messages[-1].content if self.prompt_messages else ""


@dataclass(frozen=True, slots=True)
class Source:
    """One file, as it was when it was read. `used` and `rejected` add up to `rows`."""

    path: str
    bytes: int
    sha256: str
    first_row: int
    """Position of its first row among all rows of all files, from 0."""
    rows: int
    used: int
    rejected: int
    cut: int
    """Rows of the used ones whose end was cut off."""
    shapes: dict[str, int]
    """Rows of each shape: {"messages": 1200}."""


@dataclass(frozen=True, slots=True)
class Dataset:
    train: list[Example]
    held_out: list[Example]
    held_out_rows: list[HeldOutRow]
    """The held-out rows that have an answer, shuffled, so that any number from the front is a fair sample."""
    rejects: list[RejectedRow]
    cut_rows: int
    """Rows whose end was cut off at the sequence length."""
    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    """What a person should know, one sentence each."""

    @property
    def train_tokens(self) -> int:
        return sum(len(example) for example in self.train)

    @property
    def target_tokens(self) -> int:
        """Tokens of the training examples that carry loss."""
        return sum(int(example.trained.sum()) for example in self.train)

    def write_rejects(self, path: Path) -> None:
        """One JSON object for each rejected row: path, line, reason, excerpt. Raises OSError."""
        lines = (json.dumps(each.as_dict(), ensure_ascii=False) + "\n" for each in self.rejects)
        write_atomically(path, "".join(lines).encode(errors="backslashreplace"))


def load_dataset(
    spec: DataSection,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    progress: Callable[[int, int], None],
) -> Dataset:
    """Reads, tokenises and splits the files of `spec`; `progress` gets the bytes done and the bytes in all.

    `seed` decides, with the rows' content, which are held out when no held-out file is given. Raises Problem
    for a file that cannot be read, and when more rows than allowed are unusable.
    """
    paths = [source.path for source in spec.sources]
    tokeniser = Tokeniser(tokenizer, spec.sequence_length, spec.train_on)
    files: list[_File] = []
    with ExitStack() as stack:
        # Opened all before the first is read, so that a bad path is told at once.
        readers = [stack.enter_context(read_rows(path)) for path in paths]
        total_bytes, done_bytes, first_row = sum(reader.size_bytes for reader in readers), 0, 0
        for reader in readers:
            files.append(_read(reader, tokeniser, seed, first_row, _offset(progress, done_bytes, total_bytes)))
            done_bytes += reader.size_bytes
            first_row += files[-1].rows

    if spec.held_out:
        *train_files, held_out_file = files
        for file in train_files:
            file.reject_copies_of(held_out_file)
        train, held_out = [row for file in train_files for row in file.usable], held_out_file.usable
    else:
        train, held_out = _split([row for file in files for row in file.usable], spec.held_out_share)
    rejects = [row for file in files for row in file.rejects]
    if problem := refusal(rejects, len(rejects), first_row, spec.max_rejected_share):
        raise problem
    return Dataset(
        train=[example for row in train for example in row.tokenised.examples],
        held_out=[example for row in held_out for example in row.tokenised.examples],
        held_out_rows=_answerable(held_out),
        rejects=rejects,
        cut_rows=sum(row.is_cut for file in files for row in file.usable),
        sources=tuple(file.source() for file in files),
        notes=tuple(_notes(spec, files, train, held_out)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Usable:
    line: int
    position: int
    recognised: Recognised
    tokenised: Tokenised
    digest: bytes

    @property
    def is_cut(self) -> bool:
        return self.tokenised.is_cut


@dataclass(slots=True)
class _File:
    reader: RowReader
    first_row: int
    rows: int = 0
    usable: list[_Usable] = field(default_factory=list)
    rejects: list[RejectedRow] = field(default_factory=list)

    def reject_copies_of(self, held_out: _File) -> None:
        """Set aside the rows that are in the held-out file as well."""
        lines = {row.digest: row.line for row in held_out.usable}
        for row in self.usable:
            if row.digest in lines:
                reason = f"is also in the held-out file {shown(held_out.reader.path)}"
                excerpt = next(iter(row.recognised.content.texts()))
                self.rejects.append(RejectedRow(str(self.reader.path), row.line, reason, printable(excerpt)))
        self.usable = [row for row in self.usable if row.digest not in lines]
        self.rejects.sort(key=lambda rejected: rejected.line)

    def source(self) -> Source:
        return Source(
            path=str(self.reader.path),
            bytes=self.reader.size_bytes,
            sha256=self.reader.sha256,
            first_row=self.first_row,
            rows=self.rows,
            used=len(self.usable),
            rejected=len(self.rejects),
            cut=sum(row.is_cut for row in self.usable),
            shapes=dict(Counter(row.recognised.shape for row in self.usable)),
        )


def _read(reader: RowReader, tokeniser: Tokeniser, seed: int, first_row: int, progress: Callable[[int], None]) -> _File:
    file = _File(reader, first_row)
    while batch := list(islice(reader, _BATCH_ROWS)):
        rows: list[tuple[Row, Recognised]] = []
        positions: list[int] = []
        for position, row in enumerate(batch, first_row + file.rows):
            if isinstance(row, RejectedRow):
                file.rejects.append(row)
                continue
            try:
                rows.append((row, recognise(row.value)))
                positions.append(position)
            except Unusable as reason:
                file.rejects.append(reader.rejection(row, str(reason)))
        contents = [recognised.content for _, recognised in rows]
        results = tokeniser.tokenise(list(zip(positions, contents, strict=True)))
        for position, (row, recognised), result in zip(positions, rows, results, strict=True):
            if isinstance(result, Unusable):
                file.rejects.append(reader.rejection(row, str(result)))
            else:
                digest = _digest(recognised.content, seed)
                file.usable.append(_Usable(row.line, position, recognised, result, digest))
        file.rows += len(batch)
        progress(reader.position_bytes)
    file.rejects.sort(key=lambda rejected: rejected.line)
    return file


def _digest(content: Conversation | PlainText, seed: int) -> bytes:
    """A hash of what is learnt from a row, whatever its file, its shape and its other fields."""
    if isinstance(content, PlainText):
        learnt = json.dumps(content.text)
    else:
        learnt = json.dumps([(each.role, each.content, each.learnt) for each in content.messages])
    return hashlib.blake2b(learnt.encode(), digest_size=16, key=seed.to_bytes(8, "big")).digest()


def _split(rows: Sequence[_Usable], held_out_share: float) -> tuple[list[_Usable], list[_Usable]]:
    """Training and held-out rows; at least one of each where there are two different rows and a share."""
    contents = {row.digest for row in rows}
    if held_out_share == 0 or len(contents) < 2:
        return list(rows), []
    threshold = int(held_out_share * 2**128)
    held_out = {digest for digest in contents if int.from_bytes(digest, "big") < threshold}
    held_out = (held_out or {min(contents)}) - {max(contents)}
    train = [row for row in rows if row.digest not in held_out]
    return train, [row for row in rows if row.digest in held_out]


def _answerable(rows: Sequence[_Usable]) -> list[HeldOutRow]:
    answerable = []
    for row in sorted(rows, key=lambda row: row.digest):
        content, prompt_ids = row.recognised.content, row.tokenised.prompt_ids
        if isinstance(content, Conversation) and prompt_ids is not None:
            asked = content.messages[: content.answers[-1]]
            answer = content.messages[content.answers[-1]].content
            answerable.append(HeldOutRow(row.position, asked, prompt_ids, answer))
    return answerable


def _notes(
    spec: DataSection, files: Sequence[_File], train: Sequence[_Usable], held_out: Sequence[_Usable]
) -> Iterator[str]:
    rows = [*train, *held_out]
    if rejected := sum(len(file.rejects) for file in files):
        yield f"{_rows(rejected)} set aside; rejects.jsonl has the reasons"
    if cut := sum(row.is_cut for row in rows):
        yield f"{_rows(cut)} longer than {spec.sequence_length:,} tokens, cut at the end"
    if split := sum(len(row.tokenised.examples) > 1 for row in rows):
        yield f"{_rows(split)} of text longer than {spec.sequence_length:,} tokens, learnt in several parts"
    if copies := len(rows) - len({row.digest for row in rows}):
        yield f"{_rows(copies)} an exact copy of another"
    altered = Counter(role for row in rows for role in row.tokenised.altered)
    for role, count in sorted(altered.items()):
        yield f"the chat template leaves out or changes the text of {role} messages in {count:,} rows"
    if unused := sorted({name for row in rows for name in row.recognised.unused}):
        yield f"fields that change nothing: {', '.join(printable(name, 40) for name in unused)}"
    if not held_out:
        why = "data.held_out_share is 0" if spec.held_out_share == 0 else "all rows are the same"
        yield f"no rows are held out ({why}), so nothing will show whether the model learns by heart"


def _rows(count: int) -> str:
    return f"{count:,} row{' is' if count == 1 else 's are'}"


def _offset(progress: Callable[[int, int], None], done_bytes: int, total_bytes: int) -> Callable[[int], None]:
    return lambda position_bytes: progress(done_bytes + position_bytes, total_bytes)
