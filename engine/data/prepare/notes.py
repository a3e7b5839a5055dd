"""What a person should know of their data, one sentence each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.data.dataset import SourceReport
from engine.data.prepare.shards import ROLES
from engine.data.prepare.table import Fate, Table
from profiles.problem import printable

if TYPE_CHECKING:
    from engine.spec import DataSection

_BY_RULE = {
    Fate.COPY: "an exact copy of an earlier one, set aside",
    Fate.NEAR_COPY: "nearly the same as an earlier one, set aside",
    Fate.IN_BENCHMARK: "in a benchmark file, set aside",
    Fate.HELD_OUT_TWIN: "in another group than a held-out copy, set aside",
    Fate.GROUP_HELD_OUT: "of a group that the held-out file has rows of, set aside",
}


def notes_on(spec: DataSection, table: Table, reports: Sequence[SourceReport]) -> Iterator[str]:
    """The notes on all sources together, then those on how each was read."""
    rows = table.rows
    used = rows.fate <= Fate.HELD_OUT
    fates = np.bincount(rows.fate, minlength=len(Fate)).tolist()
    if set_aside := sum(report.set_aside for report in reports):
        yield f"{rows_are(set_aside)} set aside; data/rejects.jsonl has the reasons"
    for fate, words in _BY_RULE.items():
        if fates[fate]:
            yield f"{rows_are(fates[fate])} {words}"
    if fates[Fate.LEFT_OUT]:
        yield f"{rows_are(fates[Fate.LEFT_OUT])} left out, since data.rows asks for {spec.rows:,}"
    if cut := int((rows.is_cut & used).sum()):
        yield f"{rows_are(cut)} longer than {spec.sequence_length:,} tokens, cut at the end"
    if split := int(((rows.windows > 1) & used).sum()):
        yield f"{rows_are(split)} of text longer than {spec.sequence_length:,} tokens, learnt in several parts"
    if copies := int(used.sum()) - len(np.unique(rows.digest[used])):
        yield f"{rows_are(copies)} an exact copy of another"
    for bit, role in sorted(enumerate(ROLES), key=lambda pair: pair[1]):
        if count := int((used & (rows.altered >> bit & 1).astype(bool)).sum()):
            yield f"the chat template leaves out or changes the text of {role} messages in {count:,} rows"
    warnings, personal = _counted(table)
    for warning, count in sorted(warnings.items()):
        yield f"{warning} ({count:,} rows)"
    if personal:
        done = "masked" if spec.personal == "mask" else "replaced"
        yield f"personal data {done}: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(personal.items()))
    if unused := sorted({name for each in table.shards for name in each.facts.unused}):
        yield f"fields that change nothing: {', '.join(printable(name, 40) for name in unused)}"
    if spec.group_by and spec.held_out is None:
        groupless = int(used.sum() if rows.group is None else (used & (rows.group == 0)).sum())
        if groupless:
            name = printable(spec.group_by, 40)
            yield f"{rows_are(groupless)} without a {name}, and so kept together with no others but copies"
    if spec.stratify_by and spec.held_out is None and spec.rows is None:
        wanted = round(spec.held_out_share * int(used.sum()))
        if fates[Fate.HELD_OUT] < wanted / 2:
            name = printable(spec.stratify_by, 40)
            yield (
                f"only {rows_are(fates[Fate.HELD_OUT])} held out, and {wanted:,} were to be: most of the "
                f"{len(table.strata):,} values of {name} have too few rows to give one of them"
            )
    if not fates[Fate.HELD_OUT]:
        yield f"no rows are held out ({_why_none(spec, table)}), so nothing will show whether the model learns by heart"
    for report in reports:
        yield from (note if len(reports) == 1 else f"{printable(report.path, 300)}: {note}" for note in report.notes)


def _why_none(spec: DataSection, table: Table) -> str:
    if spec.held_out is not None:
        return "none of the held-out file's can be used"
    if spec.held_out_share == 0:
        return "data.held_out_share is 0"
    if len(table.rows) == 1:
        return "there is only one"
    return "all rows are the same" if table.rows.group is None else "all rows are of one group"


def rows_are(count: int) -> str:
    return f"{count:,} row{' is' if count == 1 else 's are'}"


def _counted(table: Table) -> tuple[Counter[str], Counter[str]]:
    warnings: Counter[str] = Counter()
    personal: Counter[str] = Counter()
    for each in table.shards:
        warnings.update(each.facts.warnings)
        personal.update(each.facts.personal)
    return warnings, personal
