"""Where a person finds the rows that a run learnt from: file and line, from the shards, for the few that are asked
for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data.prepare.gather import Gathered
from engine.data.prepare.table import TableShard
from engine.data.rows import RowPlace


@dataclass(frozen=True, slots=True)
class RowPlaces:
    """Finds rows of `sources` by their position among all rows of all sources."""

    shards: Sequence[TableShard]
    sources: Sequence[Gathered]

    def of(self, rows: Iterable[int]) -> list[RowPlace]:
        """The places of `rows`, each once, in the order of the sources; `Example.row` is such a number. Those that are
        none of the usable rows are left out. Raises OSError when a shard is gone."""
        first_rows = [each.first_row for each in self.shards]
        by_shard: dict[int, list[int]] = {}
        for row in sorted(set(rows)):
            by_shard.setdefault(bisect_right(first_rows, row) - 1, []).append(row)
        return [place for at, wanted in by_shard.items() for place in self._in_shard(self.shards[at], wanted)]

    def _in_shard(self, each: TableShard, rows: Sequence[int]) -> list[RowPlace]:
        columns = each.shard.columns("position", "piece", "line")
        source = self.sources[each.source]
        places = []
        for at in np.flatnonzero(np.isin(columns["position"], np.asarray(rows) - each.first_row)).tolist():
            file, first_line = each.placed.pieces[int(columns["piece"][at])]
            path = str(Path(source.path) / file) if file else source.path
            places.append(RowPlace(path, source.unit, first_line + int(columns["line"][at])))
        return places
