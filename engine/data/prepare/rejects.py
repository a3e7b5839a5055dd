"""The rows that were set aside, in the order of their sources, each with its place and reason; never all in memory."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data.prepare.benchmarks import BenchmarkPlaces
from engine.data.prepare.rules import Twins
from engine.data.prepare.shards import read_record
from engine.data.prepare.table import Fate, Table, TableShard
from engine.data.rows import RejectedRow, shown
from engine.data.tokens.text_tokenizer import TextTokenizer
from engine.run.durable_files import writing_atomically
from profiles.problem import printable

# Rows that a person asked to have left out are no reason to refuse a source.
ASKED_FOR = (Fate.IN_BENCHMARK, Fate.COPY, Fate.NEAR_COPY, Fate.HELD_OUT_TWIN, Fate.GROUP_HELD_OUT)
_EXCERPT_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Rejects:
    """All rows that were set aside, those of the readers and those of the rules."""

    table: Table
    twins: Twins
    tokenizer: TextTokenizer
    benchmarks: BenchmarkPlaces

    def all(self, *, source: int | None = None, asked_for: bool = True) -> Iterator[RejectedRow]:
        """In the order of the sources, or those of one; without `asked_for` only those that count against
        data.max_rejected_share."""
        for each in self.table.shards:
            if source is None or each.source == source:
                yield from self._of_shard(each, asked_for)

    def write(self, path: Path) -> None:
        """One JSON object a line, whole or not at all. Raises OSError."""
        with writing_atomically(path) as file:
            for row in self.all():
                line = json.dumps(row.as_dict(), ensure_ascii=False) + "\n"
                file.write(line.encode(errors="backslashreplace"))

    def _of_shard(self, each: TableShard, asked_for: bool) -> Iterator[RejectedRow]:
        fates = self.table.rows.fate[self.table.span(each)]
        by_rule = fates > Fate.LEFT_OUT
        if not asked_for:
            by_rule &= ~np.isin(fates, ASKED_FOR)
        read: Sequence[tuple[int, RejectedRow]] = []
        if each.facts.rejected:
            read = [
                (row.position, self._placed(each, row.piece, row.line, row.reason, row.excerpt, row.unit))
                for row in each.shard.rejects()
            ]
        ruled = self._by_rule(each, np.flatnonzero(by_rule)) if by_rule.any() else ()
        for _, row in heapq.merge(read, ruled, key=lambda pair: pair[0]):
            yield row

    def _by_rule(self, each: TableShard, chosen: np.ndarray) -> Iterator[tuple[int, RejectedRow]]:
        columns = each.shard.columns("position", "piece", "line", "offset", "size")
        twins = self.twins.of(each.begins, each.begins + each.facts.usable)
        unit = self.table.gathered[each.source].unit
        with each.shard.path.open("rb") as file:
            for row in chosen.tolist():
                file.seek(each.shard.records_begin + int(columns["offset"][row]))
                _, _, ids, _ = read_record(file.read(int(columns["size"][row])), each.facts.id_dtype)
                excerpt = printable(self.tokenizer.decode(ids[0][:_EXCERPT_TOKENS].tolist()))
                reason = self._reason(each.begins + row, each, twins)
                place = self._placed(each, int(columns["piece"][row]), int(columns["line"][row]), reason, excerpt, unit)
                yield int(columns["position"][row]), place

    def _reason(self, row: int, each: TableShard, twins: dict[int, int]) -> str:
        fate = Fate(self.table.rows.fate[row])
        if fate is Fate.CUT_OFF:
            limit = self.table.sequence_length
            return f"has its answer wholly cut off at {limit:,} tokens; a larger data.sequence_length would keep it"
        if fate is Fate.ONE_TOKEN:
            return "has a text of one token: there is nothing to learn"
        if fate is Fate.IN_BENCHMARK:
            assert self.table.rows.leak is not None
            return f"holds a row of a benchmark: {self.benchmarks.place(int(self.table.rows.leak[row]))}"
        if fate is Fate.GROUP_HELD_OUT:
            return "is of a group that the held-out file has rows of"
        other = self._place_of(twins[row])
        if fate is Fate.IN_HELD_OUT:
            return f"is also in the held-out file {shown(Path(other.path))}"
        where = f"{other.unit} {other.line:,}"
        if other.path != self.table.gathered[each.source].path:
            where += f" of {shown(Path(other.path))}"
        words = {
            Fate.COPY: "is an exact copy of",
            Fate.NEAR_COPY: "is nearly the same as",
            Fate.HELD_OUT_TWIN: "is in another group than its held-out copy,",
        }
        return f"{words[fate]} {where}"

    def _place_of(self, row: int) -> RejectedRow:
        at = int(self.table.rows.shard[row])
        each = self.table.shards[at]
        columns = each.shard.columns("piece", "line")
        number = int(self.table.rows.row[row])
        unit = self.table.gathered[each.source].unit
        return self._placed(each, int(columns["piece"][number]), int(columns["line"][number]), "", "", unit)

    def _placed(self, each: TableShard, piece: int, line: int, reason: str, excerpt: str, unit: str) -> RejectedRow:
        source = self.table.gathered[each.source]
        file, first_line = each.placed.pieces[piece]
        path = str(Path(source.path) / file) if file else source.path
        return RejectedRow(path, first_line + line, reason, excerpt, unit)  # type: ignore[arg-type]
