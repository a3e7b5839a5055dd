"""From the shards of all sources to a Dataset: which rows are used, how, and what is told of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.data.contents import Kind, Message
from engine.data.dataset import Dataset, HeldOutRow, SourceReport
from engine.data.examples import Examples
from engine.data.mixing import repeats_from_weights
from engine.data.prepare.benchmarks import BenchmarkPlaces
from engine.data.prepare.gather import Gathered
from engine.data.prepare.notes import notes_on
from engine.data.prepare.places import RowPlaces
from engine.data.prepare.rejects import ASKED_FOR, Rejects
from engine.data.prepare.rules import Rules, decide
from engine.data.prepare.split import split_units
from engine.data.prepare.store import ShardStore, StoredShard
from engine.data.prepare.table import Fate, Table
from engine.data.rows import refusal, shown
from engine.data.shapes import Reading
from engine.data.tokens.text_tokenizer import TextTokenizer
from profiles.problem import Problem

if TYPE_CHECKING:
    from engine.spec import DataSection

_HELD_OUT_ROWS = 1024
_FIRST_REJECTS = 100
# Of rejected rows, how many are looked through for different reasons when a source is refused.
_REASONS_FROM = 1000


def assemble(
    spec: DataSection,
    tokenizer: TextTokenizer,
    gathered: Sequence[Gathered],
    readings: Sequence[Reading],
    benchmarks: BenchmarkPlaces,
    root: Path,
    *,
    scratch: Path,
    notes: Sequence[str],
) -> Dataset:
    """The Dataset of sources whose shards lie below `root`. Raises Problem when more rows than allowed cannot be used
    and when none are left; OSError."""
    table = Table(gathered, root, spec.sequence_length, spec.train_on)
    rules = Rules(
        held_out_source=None if spec.held_out is None else len(spec.train),
        held_out_share=spec.held_out_share,
        split_seed=spec.split_seed,
        rows=spec.rows,
        duplicates=spec.duplicates,
        with_benchmarks=bool(spec.benchmarks),
    )
    rejects = Rejects(table, decide(table, rules, scratch), tokenizer, benchmarks)
    _refuse(table, rejects, spec.max_rejected_share)
    labels = sorted({label for each in table.shards for label in each.facts.labels})
    store = _store(table, labels)
    rows = table.rows
    train, held_out = rows.fate == Fate.TRAIN, rows.fate == Fate.HELD_OUT
    examples = Examples(store, rows.places(train, spec.sequence_length))
    repeats = _repeats(spec, np.bincount(examples.sources, minlength=len(spec.train)).tolist())
    accounts = [_Account(table, source) for source in range(len(gathered))]
    reports = [
        account.report(reading, (repeats[source] if source < len(repeats) else 1.0), source == rules.held_out_source)
        for source, (account, reading) in enumerate(zip(accounts, readings, strict=True))
    ]
    return Dataset(
        train=examples,
        held_out=Examples(store, rows.places(held_out, spec.sequence_length, spec.split_seed)),
        held_out_rows=_answerable(table, store, held_out, spec),
        kind=_kind(readings),
        labels=tuple(labels),
        several_labels=any(each.facts.several_labels for each in table.shards),
        sources=tuple(reports),
        repeats=repeats,
        places_of=RowPlaces(table.shards, table.gathered).of,
        reject_count=sum(report.set_aside for report in reports),
        write_rejects=rejects.write,
        first_rejects=tuple(islice(rejects.all(), _FIRST_REJECTS)),
        cut_rows=int((rows.is_cut & (train | held_out)).sum()),
        notes=(*tokenizer.notes, *notes, *notes_on(spec, table, reports)),
        train_tokens=int(examples.lengths.sum(dtype=np.int64)),
        target_tokens=int(rows.targets[train].sum(dtype=np.int64)),
        uncut_lengths=table.uncut_lengths(),
        made_by=_made_by(spec, tokenizer, table),
    )


def _refuse(table: Table, rejects: Rejects, allowed_share: float) -> None:
    fates = np.bincount(table.rows.fate, minlength=len(Fate))
    by_rule = sum(int(fates[fate]) for fate in Fate if fate > Fate.LEFT_OUT and fate not in ASKED_FOR)
    count = sum(each.facts.rejected for each in table.shards) + by_rule
    if count:
        first = list(islice(rejects.all(asked_for=False), _REASONS_FROM))
        if problem := refusal(first, count, table.row_count, allowed_share):
            raise problem
    for source in range(len(table.gathered)):
        of_source = [each.facts for each in table.shards if each.source == source]
        if not any(facts.usable for facts in of_source):
            # Perhaps few among all rows, and yet nobody gives a file that nothing is to be taken from.
            count = sum(facts.rejected for facts in of_source)
            if problem := refusal(list(islice(rejects.all(source=source), _REASONS_FROM)), count, count, 0.0):
                raise problem
    if not fates[Fate.TRAIN]:
        counts = ", ".join(
            f"{int(fates[fate]):,} {fate.name.lower().replace('_', ' ')}" for fate in Fate if fates[fate]
        )
        where = shown(Path(table.gathered[0].path))
        raise Problem(where, f"leaves no rows to train on ({counts})", "Give more rows, or loosen the data settings.")


def _store(table: Table, labels: Sequence[str]) -> ShardStore:
    numbers = {label: number for number, label in enumerate(labels)}
    return ShardStore(
        [
            StoredShard(
                path=each.shard.path,
                records_begin=each.shard.records_begin,
                records_bytes=each.shard.records_bytes,
                records_sha256=each.facts.records_sha256,
                id_dtype=each.facts.id_dtype,
                first_row=each.first_row,
                source=each.source,
                label_ids=np.array([numbers[label] for label in each.facts.labels], dtype=np.int32),
            )
            for each in table.shards
        ],
        table.sequence_length,
        table.train_on,
    )


def _repeats(spec: DataSection, counts: Sequence[int]) -> tuple[float, ...]:
    weights = [source.weight for source in spec.train]
    if all(weight is None for weight in weights):
        return tuple(source.repeats for source in spec.train)
    for number, source in enumerate(spec.train, 1):
        if source.repeats != 1:
            raise Problem(
                f"data.train, source {number}",
                "has repeats, and there are sources with weights, which say how often each comes",
                "Give weights or repeats, not both.",
            )
    return repeats_from_weights([1.0 if weight is None else weight for weight in weights], counts)


@dataclass(frozen=True, slots=True)
class _Account:
    """What became of one source's rows."""

    table: Table
    source: int

    def report(self, reading: Reading, repeats: float, is_held_out: bool) -> SourceReport:
        gathered, rows = self.table.gathered[self.source], self.table.rows
        shards = [each for each in self.table.shards if each.source == self.source]
        begins = shards[0].begins if shards else 0
        at = slice(begins, begins + sum(each.facts.usable for each in shards))
        fates = np.bincount(rows.fate[at], minlength=len(Fate)).tolist()
        used = rows.fate[at] <= Fate.HELD_OUT
        shapes = np.bincount(rows.shape[at][used], minlength=len(self.table.shapes)).tolist()
        unreadable = sum(each.facts.rejected for each in shards)
        reasons = {"cannot be used": unreadable} if unreadable else {}
        reasons |= {
            fate.name.lower().replace("_", " "): fates[fate] for fate in Fate if fate > Fate.LEFT_OUT and fates[fate]
        }
        return SourceReport(
            path=gathered.path,
            is_held_out=is_held_out,
            size_bytes=gathered.size_bytes,
            sha256=gathered.sha256,
            format=gathered.format,
            unit=gathered.unit,
            first_row=shards[0].first_row if shards else 0,
            rows=sum(each.facts.rows for each in shards),
            trained=fates[Fate.TRAIN],
            held_out=fates[Fate.HELD_OUT],
            left_out=fates[Fate.LEFT_OUT],
            set_aside=sum(reasons.values()),
            reasons=reasons,
            cut=int((rows.is_cut[at] & used).sum()),
            shapes={shape: count for shape, count in zip(self.table.shapes, shapes, strict=True) if count},
            train_tokens=self._train_tokens(at),
            repeats=repeats,
            mapping=asdict(reading),
            notes=gathered.notes,
        )

    def _train_tokens(self, at: slice) -> int:
        rows = self.table.rows
        trained = rows.fate[at] == Fate.TRAIN
        # The parts of a text begin with the last token of the part before.
        again = np.maximum(rows.windows[at] - 1, 0)
        return int((rows.lengths[at] + again)[trained].sum(dtype=np.int64))


def _kind(readings: Sequence[Reading]) -> Kind:
    kinds = {reading.kind for reading in readings}
    return "conversation" if kinds == {"conversation", "text"} else readings[0].kind


def _answerable(table: Table, store: ShardStore, held_out: np.ndarray, spec: DataSection) -> list[HeldOutRow]:
    """The held-out rows that come first by their units, as far as their texts were kept."""
    rows = table.rows
    at = np.flatnonzero(held_out)
    units = split_units(rows.digest[at], None if rows.group is None else rows.group[at], spec.split_seed)
    # Some more than are wanted, since a row may have no answer left.
    first = at[np.argsort(units, kind="stable")[: 2 * _HELD_OUT_ROWS]]
    wanted: dict[int, set[int]] = {}
    for row in first.tolist():
        wanted.setdefault(int(rows.shard[row]), set()).add(int(rows.row[row]))
    samples = {shard: table.shards[shard].shard.samples(numbers) for shard, numbers in wanted.items()}
    found = (_held_out_row(table, store, row, samples) for row in first.tolist())
    return list(islice((row for row in found if row is not None), _HELD_OUT_ROWS))


def _held_out_row(table: Table, store: ShardStore, row: int, samples: dict[int, dict[int, Any]]) -> HeldOutRow | None:
    rows = table.rows
    shard, number = int(rows.shard[row]), int(rows.row[row])
    if number not in samples[shard]:
        return None
    messages = tuple(Message(*each) for each in samples[shard][number])
    answer = max(index for index, each in enumerate(messages) if each.role == "assistant" and each.learnt)
    position, prompt_ids = store.prompt(shard, int(rows.offset[row]), int(rows.size[row]))
    if prompt_ids is None:
        return None
    return HeldOutRow(position, messages[:answer], prompt_ids, messages[answer].content)


def _made_by(spec: DataSection, tokenizer: TextTokenizer, table: Table) -> dict[str, Any]:
    return {
        "tokenizer": {"name": tokenizer.name, "sha256": tokenizer.sha256},
        "chat_template": {
            "name": tokenizer.template_name,
            "sha256": hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest(),
        },
        "sequence_length": spec.sequence_length,
        "train_on": spec.train_on,
        "split_seed": spec.split_seed,
        "held_out_share": None if spec.held_out else spec.held_out_share,
        "group_by": spec.group_by,
        "stratify_by": spec.stratify_by,
        "rows": spec.rows,
        "duplicates": spec.duplicates,
        "personal": spec.personal,
        "benchmarks": [str(path) for path in spec.benchmarks],
        "shards": [
            {"source": each.source, "name": each.shard.path.name, "sha256": each.facts.records_sha256}
            for each in table.shards
        ],
    }
