"""`finetui inspect DATA --report`: what a person should know of their data, as lines or JSON."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from engine.data.personal.found import WORDS
from engine.data.quality.client import QualityRun
from engine.data.quality.findings import Duplicates, LengthReport, Place, QualityReport, Tally
from engine.data.quality.options import ReportOptions
from engine.data.quality.progress import Progress
from engine.data.source import Source
from profiles.problem import Problem
from tui.commands import status
from tui.commands.output import Output
from tui.format import bytes_text, count_text, counted, duration_text, rate_text, share_text

_POLL_SECONDS = 0.25
_BAR_CELLS = 30
_PLACES_SHOWN = 3
_VALUES_SHOWN = 8
_LABEL_CELLS = 11


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("quality report")
    group.add_argument(
        "--report",
        action="store_true",
        help="look at every row: lengths, duplicates, leaks, languages, classes, personal data",
    )
    group.add_argument("--held-out", type=Path, metavar="FILE", help="rows that are never trained on, to be compared")
    group.add_argument(
        "--benchmark", type=Path, metavar="FILE", action="append", default=[], help="rows that must not be among them"
    )
    group.add_argument(
        "--attribute", metavar="COLUMN", action="append", default=[], help="a column whose balance is to be told"
    )
    group.add_argument("--sample", type=int, metavar="ROWS", help="look at this many rows only")


def run(arguments: argparse.Namespace, source: Source, output: Output) -> int:
    """Makes the report of `source` in a child process and prints it. Takes --model, --chat-template and --seq-len of
    the command, too. Raises Problem."""
    if arguments.sample is not None and arguments.sample < 1:
        raise Problem("--sample", f"is {arguments.sample}", "Give the number of rows to look at.")
    options = ReportOptions(
        rows=arguments.sample,
        attributes=tuple(arguments.attribute),
        model=None if arguments.model is None else arguments.model.expanduser().absolute(),
        chat_template=arguments.chat_template,
        sequence_length=arguments.seq_len or ReportOptions().sequence_length,
    )
    held_out = None if arguments.held_out is None else Source(arguments.held_out.expanduser().absolute())
    benchmarks = [path.expanduser().absolute() for path in arguments.benchmark]
    work = QualityRun([source], held_out, benchmarks, options)
    try:
        while (found := work.wait(_POLL_SECONDS)) is None:
            if output.live and not arguments.json:
                output.status(progress_text(work.progress))
    except KeyboardInterrupt:
        work.cancel()
        raise
    if arguments.json:
        output.json({"kind": "quality", **found.as_dict()})
    else:
        output.lines(list(report_lines(found)))
    return status.DONE


def progress_text(progress: Progress) -> str:
    if not progress.rows_per_second:
        return f"{progress.doing} ..."
    share = share_text(round(progress.done_bytes / max(1, progress.total_bytes), 2))
    return (
        f"{progress.doing}: {bytes_text(progress.done_bytes)} of {bytes_text(progress.total_bytes)} ({share}), "
        f"{rate_text(progress.rows_per_second, 'rows/s')}"
    )


def report_lines(found: QualityReport) -> Iterator[str]:
    """The whole report, findings last, where a terminal shows them."""
    for source in found.sources:
        split = "" if source.split == "train" else ", held out"
        unusable = f", {count_text(source.unusable)} cannot be used" if source.unusable else ""
        yield _line("data", f"{source.path}{split}: {counted(source.rows, 'row')}{unusable}")
    yield _line("looked at", f"{counted(found.examined, 'row')} in {duration_text(found.seconds)}")
    yield from _length_lines(found.lengths)
    yield from _duplicate_lines("copies", found.exact)
    yield from _duplicate_lines("near copies", found.near)
    yield from _tally_lines("languages", found.languages)
    if found.labels is not None:
        yield from _tally_lines("classes", found.labels)
    for attribute in found.attributes:
        yield from _tally_lines(attribute.name, attribute)
    for leak in found.leaks:
        yield _line("benchmark", f"{leak.path}: {leak.leaked_rows:,} of {counted(leak.rows, 'row')} found among yours")
    for kind in found.personal:
        yield _line("personal", f"{count_text(kind.findings)} {_words(kind.kind)} in {counted(kind.rows, 'row')}")
        yield from (_line("", f"{_short(place)}: {place.excerpt}") for place in kind.places[:_PLACES_SHOWN])
    for reason, count in found.unusable.values[:_VALUES_SHOWN]:
        yield _line("set aside", f"{counted(count, 'row')} {reason}")
    yield from (_line("note", note) for note in found.notes)
    yield ""
    if not found.findings:
        yield "Nothing was found that needs a change."
    for number, finding in enumerate(found.findings, 1):
        yield f"{number}. {finding.what}"
        yield from (f"     {_short(place)}: {place.excerpt}" for place in finding.places[:_PLACES_SHOWN])
        yield f"   fix: {finding.fix}"


def _length_lines(lengths: LengthReport) -> Iterator[str]:
    yield _line(
        "lengths",
        f"{count_text(lengths.median)} {lengths.unit} a row (median), {count_text(lengths.p99)} (99 %), "
        f"{count_text(lengths.maximum)} (longest)",
    )
    most = max(lengths.counts)
    for start, count in zip(lengths.edges, lengths.counts, strict=False):
        bar = "█" * round(_BAR_CELLS * count / max(1, most)) or ("·" if count else "")
        yield _line("", f"{count_text(start):>9} {bar:<{_BAR_CELLS}} {count_text(count)}")
    for cut in lengths.cuts:
        if cut.rows:
            lost = share_text(round(cut.lost_share, 3))
            yield _line("cut at", f"{cut.length:>6,} tokens: {counted(cut.rows, 'row')}, {lost} of all tokens")


def _duplicate_lines(name: str, found: Duplicates) -> Iterator[str]:
    told = f"{counted(found.within, 'row')} in {counted(found.groups, 'group')}" if found.within else "none"
    if found.across:
        told += f"; {counted(found.across, 'held-out row')} of training rows"
    yield _line(name, told)
    for pair in (*found.across_pairs, *found.pairs)[:_PLACES_SHOWN]:
        alike = f" ({share_text(round(pair.similarity, 2))} alike)" if pair.similarity not in (None, 1.0) else ""
        yield _line("", f"{_short(pair.row)} is {_short(pair.of, pair.row)}{alike}: {pair.row.excerpt}")


def _tally_lines(name: str, found: Tally) -> Iterator[str]:
    shown = found.values[:_VALUES_SHOWN]
    rest = found.rows - sum(count for _, count in shown)
    parts = [f"{value} {share_text(round(count / max(1, found.rows), 3))}" for value, count in shown]
    if rest:
        parts.append(f"others {share_text(round(rest / found.rows, 3))}")
    yield _line(name, ", ".join(parts) if parts else "none")


def _short(place: Place, other: Place | None = None) -> str:
    """A place without its folder, and without its file where that is the other's too."""
    where = f"{place.unit} {place.line:,}"
    return where if other is not None and other.source == place.source else f"{Path(place.source).name}, {where}"


def _words(kind: str) -> str:
    return next((words for each, words in WORDS.items() if each == kind), kind)


def _line(label: str, text: str) -> str:
    return f"{label:<{_LABEL_CELLS}} {text}"
