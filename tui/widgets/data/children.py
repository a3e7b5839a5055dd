"""The Data screen's work in child processes, told as it goes on: every row prepared, and the quality report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from engine.spec import DataSection
from profiles.problem import Problem
from tui.format import counted, share_text
from tui.widgets.data.board import Counts, DataChoice, DataPrepared, Progress
from tui.widgets.data.findings import Finding, Fix, SetValue, Show
from tui.widgets.data.length_table import LengthTable

if TYPE_CHECKING:
    from engine.data.prepare.progress import Progress as Preparing
    from engine.data.quality.findings import Finding as Found
    from engine.data.quality.findings import QualityReport, Tally
    from engine.data.quality.progress import Progress as Reporting

LOOK_SECONDS = 0.3
"""How often a child's progress is looked at; the screen need not be drawn more often."""
FIX_WORDS = {
    ("data.personal", "mask"): "mask them",
    ("data.personal", "pseudonymise"): "replace them",
    ("data.duplicates", "drop_exact"): "set exact copies aside",
    ("data.duplicates", "drop_near"): "set near copies aside",
    ("data.train_on", "last_answer"): "learn the last answer",
}
GRAVE = ("leak", "across", "benchmark", "ways_out")
"""Findings whose key holds one of these make a measurement worthless, or are an alarm."""
VALUES_TOLD = 6


def prepare(choice: DataChoice) -> Iterator[Progress | DataPrepared]:
    """Every row tokenised and kept for the run; closing the iterator ends the child. Raises Problem."""
    from engine.data.prepare.client import Preparation

    assert choice.model is not None
    preparation = Preparation(choice.model, data_section(choice))
    began = time.monotonic()
    try:
        while not preparation.wait(LOOK_SECONDS):
            if preparation.progress is not None:
                yield _progress("preparing", preparation.progress, began)
    finally:
        preparation.cancel()
    if preparation.problem is not None:
        raise preparation.problem
    assert preparation.result is not None
    account = preparation.result.account
    table = LengthTable(dict(preparation.result.lengths), "tokens", complete=True)
    trained_on = [source for source in account["sources"] if not source["is_held_out"]]
    cut = sum(source["cut"] for source in trained_on)
    yield DataPrepared(
        Counts(
            whole=sum(source["trained"] + source["held_out"] for source in trained_on) - cut,
            cut=cut,
            aside=sum(source["set_aside"] for source in trained_on),
            left_out=sum(source["left_out"] for source in trained_on),
            exact=True,
            held_out=None if choice.held_out else sum(source["held_out"] for source in trained_on),
            in_held_out_file=sum(source["held_out"] for source in account["sources"]) if choice.held_out else None,
            trained=tuple(source["trained"] for source in trained_on),
        ),
        table,
        preparation.tried,
    )


def data_section(choice: DataChoice) -> dict[str, object]:
    """The spec's data section that a choice makes, as JSON types."""
    return DataSection(train=choice.sources, held_out=choice.held_out, **_fields(choice)).model_dump(mode="json")


def _fields(choice: DataChoice) -> dict[str, Any]:
    return {field.removeprefix("data."): value for field, value in choice.settings.items()}


def report(choice: DataChoice, rows: int | None) -> Iterator[Progress | tuple[Finding, ...]]:
    """The quality of the first `rows` rows, or of all; closing the iterator ends the child. Raises Problem."""
    from engine.data.quality.client import QualityRun
    from engine.data.quality.options import ReportOptions

    section = DataSection(train=choice.sources, **_fields(choice))
    options = ReportOptions(
        rows=rows, model=choice.model, chat_template=section.chat_template, sequence_length=section.sequence_length
    )
    held_out = None if choice.held_out is None else choice.held_out.source()
    run = QualityRun([each.source() for each in choice.sources], held_out, options=options)
    began = time.monotonic()
    try:
        while (found := run.wait(LOOK_SECONDS)) is None and not run.is_done:
            yield _progress(run.progress.doing, run.progress, began)
    finally:
        if not run.is_done:
            run.cancel()
    if found is None:
        raise Problem("the quality report", "was ended", "Press W to make it again.")
    yield tuple(findings_of(found))


def findings_of(found: QualityReport) -> list[Finding]:
    """What a report says, the gravest first, then what is well."""
    told = [_finding(each) for each in found.findings]
    told.sort(key=lambda each: each.level != "bad")
    if not found.exact.within and not found.exact.across:
        near = found.near.within + found.near.across
        told.append(Finding("good", "no row is an exact copy" + ("" if near else ", or nearly one, of another")))
    told.append(Finding("good", _tally(found.languages)))
    told += [Finding("good", _tally(each)) for each in (found.labels, *found.attributes) if each is not None]
    if not found.personal_rows:
        told.append(Finding("good", "no personal data was found"))
    if found.notes:
        told.append(Finding("good", f"looked at {counted(found.examined, 'row')}", found.notes))
    return told


def _finding(each: Found) -> Finding:
    lines = frozenset(place.line for place in each.places)
    fix: Fix = Show("sample", "see its rows", lines=lines) if lines else Show("columns", "see how it is read")
    if each.setting is not None:
        label = FIX_WORDS.get(each.setting, f"{each.setting[0].removeprefix('data.')} = {each.setting[1]}")
        fix = SetValue(*each.setting, label)
    places = tuple(f"{place.unit} {place.line:,}: {place.excerpt}" for place in each.places)
    grave = any(word in each.key for word in GRAVE)
    advice = () if each.setting is not None else (each.fix,)
    return Finding("bad" if grave else "warn", each.what, places, fix, lines, advice)


def _tally(tally: Tally) -> str:
    shares = [
        f"{name} {share_text(round(count / max(1, tally.rows), 3))}" for name, count in tally.values[:VALUES_TOLD]
    ]
    more = tally.distinct - len(shares)
    return f"{tally.name}: {', '.join(shares) or 'none'}" + (f" and {more:,} more" if more > 0 else "")


def _progress(what: str, told: Preparing | Reporting, began: float) -> Progress:
    share = min(1.0, told.done_bytes / told.total_bytes) if told.total_bytes else 0.0
    elapsed = time.monotonic() - began
    left = elapsed * (1 - share) / share if share > 0.01 else None
    return Progress(what, share, told.rows_per_second or None, left)
