"""A first look at data, without the model's libraries: what a source holds, how it is read, what is wrong with it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from engine.data.contents import Kind, Unusable
from engine.data.files import RowReader, open_rows
from engine.data.one_core import one_core_environment
from engine.data.preview_counts import Column, Counts, Lengths, Sample, sample_dict, spoken
from engine.data.rows import RejectedRow, Row, Unit, refusal, shown
from engine.data.shapes import Reading, Recogniser, UnclearColumns, reading_of
from engine.data.shapes.suggestions import Suggestion, suggestions_for
from engine.data.source import READER, Source
from engine.modules import module_command
from engine.run.sealing.hearing import Hearing
from engine.seal.policy.places import data_places
from engine.seal.sealing import run_sealed
from engine.wire import from_bytes, to_bytes
from profiles.problem import Problem

__all__ = [
    "Column",
    "DataPreview",
    "Lengths",
    "Sample",
    "Suggestion",
    "as_source",
    "first_reading",
    "preview",
    "spoken",
]

PREVIEW_BYTES = 16 * 2**20
READING_ROWS = 256
"""Rows that a reading is decided from; of a file with fewer, all."""
_READING_BYTES = 2**23
_APART_SECONDS = 60.0
"""A look takes some seconds at most; of a template that is that slow 16 MiB of rows would take hours to prepare."""
"""Rows may be of any size; beyond this no further one is needed to tell the shape."""
_SAMPLES_WRITTEN = 5


@dataclass(frozen=True, slots=True)
class DataPreview:
    """What the first `read_bytes` of a source hold; all of it when `complete`."""

    source: Source
    bytes: int
    """Of the files as they are stored."""
    read_bytes: int
    rows: int
    """Rows read, usable or not."""
    shape: str
    """The fields most rows are understood by, such as "messages" or "prompt, completion"; "" when none is."""
    shapes: Mapping[str, int]
    """Rows of each shape."""
    rejected: tuple[RejectedRow, ...]
    """The first rows that cannot be used."""
    reject_count: int
    samples: tuple[Sample, ...]
    characters: Lengths
    """Of usable rows, over all their texts."""
    sequences: Lengths
    """The same of what goes through the model at once: a preference pair is two conversations, a pair of similar
    texts two or more; else the row."""
    sequences_per_row: float
    complete: bool
    notes: tuple[str, ...]
    format: str
    """As found: "jsonl", "csv", ..."""
    unit: Unit
    columns: tuple[Column, ...]
    reading: Reading | None
    """How the rows are understood; None where nothing tells, which `unclear` explains."""
    unclear: Problem | None = None
    suggestions: tuple[Suggestion, ...] = ()
    tried: str = ""
    """What its reader tried to get out of its seal, as a sentence."""

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def kind(self) -> Kind | None:
        return self.reading.kind if self.reading else None

    @property
    def told(self) -> tuple[str, ...]:
        """All that a person should know: `notes`, and what was tried."""
        return (*self.notes, self.tried) if self.tried else self.notes

    @property
    def usable_rows(self) -> int:
        return self.rows - self.reject_count

    @property
    def estimated_rows(self) -> int:
        """Rows of the whole source: exact when `complete`, else from the mean size of those read."""
        return self.rows if self.complete else round(self.rows * self.bytes / max(1, self.read_bytes))

    def refusal(self, allowed_share: float) -> Problem | None:
        """The Problem a run would stop with when it may reject this share of the rows."""
        return self.unclear or refusal(self.rejected, self.reject_count, self.rows, allowed_share, quoting=True)

    def as_dict(self) -> dict[str, Any]:
        reading = self.reading
        return {
            "path": str(self.path),
            "format": self.format,
            "bytes": self.bytes,
            "read_bytes": self.read_bytes,
            "complete": self.complete,
            "unit": self.unit,
            "rows": self.rows,
            "estimated_rows": self.estimated_rows,
            "kind": self.kind,
            "reading": {"shape": reading.shape, "columns": dict(reading.columns)} if reading else None,
            "shape": self.shape,
            "shapes": dict(self.shapes),
            "columns": [column.as_dict() for column in self.columns],
            "rejected_rows": self.reject_count,
            "rejected": [row.as_dict() for row in self.rejected],
            "samples": [sample_dict(sample) for sample in self.samples[:_SAMPLES_WRITTEN]],
            "characters": self.characters.as_dict(),
            "sequence_characters": self.sequences.as_dict(),
            "notes": list(self.told),
            "suggestions": [suggestion.words for suggestion in self.suggestions],
        }


def as_source(source: Source | Path) -> Source:
    return Source(source) if isinstance(source, Path) else source


def preview(source: Source | Path, limit_bytes: int = PREVIEW_BYTES) -> DataPreview:
    """Reads a source up to the row that passes `limit_bytes`. Raises Problem when it cannot be read at all, or when
    what a person said of it (columns, templates) does not fit. Templates run in a child process."""
    source = as_source(source)
    if source.prompt_template or source.answer_template:
        return _preview_apart(source, limit_bytes)
    return preview_here(source, limit_bytes)


def _preview_apart(source: Source, limit_bytes: int) -> DataPreview:
    """`preview` in a child. Raises what it raises there, and Problem when the child takes too long or dies."""
    hearing = Hearing(READER)
    try:
        done = run_sealed(
            module_command("engine.data.preview_child"),
            data_places([source.path]),
            input=to_bytes((source, limit_bytes)),
            timeout_seconds=_APART_SECONDS,
            env=one_core_environment(),
            start=hearing.start,
        )
    except subprocess.TimeoutExpired:
        what = f"has templates that were not done with its first rows in {_APART_SECONDS:.0f} seconds"
        raise hearing.beside(Problem(shown(source.path), what, "Write the templates more simply.")) from None
    finally:
        hearing.close()
    if done.returncode:
        what = f"has templates that ended the process they ran in (status {done.returncode})"
        raise hearing.beside(Problem(shown(source.path), what, "Write the templates more simply."))
    found = from_bytes(done.stdout)
    if isinstance(found, Problem):
        raise hearing.beside(found)
    return replace(found, tried=hearing.told())


def preview_here(source: Source, limit_bytes: int) -> DataPreview:
    """`preview` in this process, whatever the source's templates may do to it."""
    counts = Counts()
    with open_rows(source) as reader:
        first = first_rows(reader, limit_bytes)
        values = [row.value for row in first if isinstance(row, Row)]
        reading, unclear = _reading(source, values)
        recogniser = Recogniser(source, reading)
        for row in chain(first, reader):
            if isinstance(row, RejectedRow):
                counts.reject(row)
            else:
                counts.look_at(row.value)
                try:
                    counts.take(row.line, recogniser.recognise(row.value))
                except Unusable as reason:
                    counts.reject(reader.rejection(row, str(reason)))
            if counts.rows >= len(first) and reader.position_bytes >= limit_bytes:
                break
        complete = reader.position_bytes >= reader.size_bytes
        found = DataPreview(
            source=source,
            bytes=reader.size_bytes,
            read_bytes=reader.position_bytes,
            rows=counts.rows,
            shape=max(counts.shapes, key=counts.shapes.__getitem__, default=""),
            shapes=dict(counts.shapes),
            rejected=tuple(counts.rejected),
            reject_count=counts.reject_count,
            samples=tuple(counts.samples),
            characters=Lengths.of(counts.lengths),
            sequences=Lengths.of(counts.sequence_lengths),
            sequences_per_row=len(counts.sequence_lengths) / max(1, len(counts.lengths)),
            complete=complete,
            notes=(*reader.notes(), *counts.notes(reader.unit)),
            format=reader.format,
            unit=reader.unit,
            columns=counts.columns(),
            reading=reading,
            unclear=unclear,
        )
    return replace(found, suggestions=suggestions_for(source, reading, values))


def first_reading(source: Source | Path) -> Reading:
    """How a source is understood, from its first rows. Raises Problem as `preview` does and where nothing tells."""
    source = as_source(source)
    with open_rows(source) as reader:
        return reading_of(source, [row.value for row in first_rows(reader) if isinstance(row, Row)])


def first_rows(reader: RowReader, limit_bytes: int = PREVIEW_BYTES) -> list[Row | RejectedRow]:
    """The rows that a source's reading is decided from, whoever decides it."""
    rows: list[Row | RejectedRow] = []
    for row in reader:
        rows.append(row)
        if len(rows) == READING_ROWS or reader.position_bytes >= min(limit_bytes, _READING_BYTES):
            break
    return rows


def _reading(source: Source, rows: Sequence[Mapping[str, Any]]) -> tuple[Reading | None, Problem | None]:
    """The reading, or what a person is to say first. Raises Problem for what they said that does not fit."""
    if not rows:
        return None, None  # the rows' own reasons tell what is wrong
    try:
        return reading_of(source, rows), None
    except UnclearColumns as question:
        return None, question
