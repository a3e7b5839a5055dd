"""The facts of all chunks together: counts in memory, one entry a row on disk."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engine.data.files import Chunk
from engine.data.quality.chunk_work import COLUMNS, PLACES_KEPT, ChunkFacts, Spot, count_values
from engine.data.quality.findings import Place, SourceCount, Split
from engine.data.rows import RejectedRow, Unit
from engine.data.source import Source

# Reasons that differ only in a place within the row are many; they are told by their first ones.
_REJECTS_KEPT = 20


class Gathered:
    """Everything that was found, source by source in the order of `sources`. Columns are files under `folder`."""

    def __init__(self, sources: tuple[Source, ...], splits: tuple[Split, ...], folder: Path):
        self.sources = tuple(_Found(source, split) for source, split in zip(sources, splits, strict=True))
        self.languages: Counter[str] = Counter()
        self.language_places: dict[str, list[Place]] = {}
        self.labels: Counter[str] = Counter()
        self.attributes: dict[str, Counter[str]] = {}
        self.personal: Counter[str] = Counter()
        self.personal_kind_rows: Counter[str] = Counter()
        self.personal_rows = 0
        self.personal_places: dict[str, list[Place]] = {}
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}

    @property
    def rows(self) -> int:
        return sum(source.rows for source in self.sources)

    @property
    def examined(self) -> int:
        return sum(source.examined for source in self.sources)

    @property
    def training_rows(self) -> int:
        """Those examined of the training sources, which come before the held-out ones."""
        return sum(source.examined for source in self.sources if source.split == "train")

    @property
    def reasons(self) -> Counter[str]:
        return sum((source.reasons for source in self.sources), Counter())

    def begin_chunk(self, source: int, chunk: Chunk, unit: Unit) -> None:
        self.sources[source].learn_files(chunk, unit)

    def add(self, source: int, facts: ChunkFacts) -> None:
        """The facts of the next chunk of `source`; sources are added one after another."""
        found = self.sources[source]
        found.add(facts)
        self.languages.update(facts.languages)
        count_values(self.labels, facts.labels)
        for name, values in facts.attributes.items():
            count_values(self.attributes.setdefault(name, Counter()), values)
        self.personal.update(facts.personal)
        self.personal_kind_rows.update(facts.personal_kind_rows)
        self.personal_rows += facts.personal_rows
        _keep(self.language_places, facts.language_spots, found)
        _keep(self.personal_places, facts.personal_spots, found)
        for name, column in facts.columns.items():
            if name not in self._files:
                self._files[name] = (self._folder / name).open("wb")
            self._files[name].write(np.ascontiguousarray(column).data)

    def column(self, name: str) -> NDArray[Any]:
        """One column of all rows as a memory map, (rows,) or (rows, numbers)."""
        if not self.examined:
            return np.zeros(0, COLUMNS[name])
        self._files[name].flush()
        column = np.memmap(self._folder / name, dtype=COLUMNS[name], mode="r")
        return column.reshape(self.examined, -1) if len(column) > self.examined else column

    def place(self, row: int) -> Place:
        """Where the row is that has this position in the columns."""
        for source in self.sources:
            if row < source.examined:
                break
            row -= source.examined
        at = sum(other.examined for other in self.sources[: self.sources.index(source)]) + row
        text = bytes(self.column("excerpt")[at]).decode(errors="ignore")
        return source.place(Spot(int(self.column("line")[at]), text))

    def close(self) -> None:
        for file in self._files.values():
            file.close()


@dataclass(eq=False)
class _Found:
    """What is known of one source."""

    source: Source
    split: Split
    rows: int = 0
    unusable: int = 0
    is_complete: bool = False
    rejected: list[RejectedRow] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    _starts: list[tuple[int, str]] = field(default_factory=list)
    _unit: Unit = "line"

    @property
    def examined(self) -> int:
        return self.rows - self.unusable

    def count(self) -> SourceCount:
        return SourceCount(str(self.source.path), self.split, self.rows, self.examined, self.unusable, self.is_complete)

    def learn_files(self, chunk: Chunk, unit: Unit) -> None:
        """Which numbers of rows are of which file of a folder."""
        self._unit = unit
        for piece in chunk.pieces:
            start = (piece.lines_before, str(piece.path_in(self.source)))
            if not self._starts or self._starts[-1] != start:
                self._starts.append(start)

    def add(self, facts: ChunkFacts) -> None:
        self.rows += facts.rows
        self.unusable += facts.reasons.total()
        count_values(self.reasons, facts.reasons)
        self.rejected += facts.rejected[: _REJECTS_KEPT - len(self.rejected)]

    def place(self, spot: Spot) -> Place:
        lines_before, path = self._starts[max(0, bisect_left(self._starts, (spot.line, "")) - 1)]
        return Place(path, spot.line - lines_before, spot.excerpt, self._unit)


def _keep(places: dict[str, list[Place]], spots: dict[str, list[Spot]], found: _Found) -> None:
    for name, some in spots.items():
        kept = places.setdefault(name, [])
        kept += [found.place(spot) for spot in some[: PLACES_KEPT - len(kept)]]
