"""`finetui inspect DATA`: what data hold, and with a model, how one row of them will be learnt."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from engine.data.preview import DataPreview, preview, spoken
from engine.data.shapes import KIND_WORDS
from engine.data.source import Shape, Source
from engine.data.tokens.desk import Desk, RowLength
from engine.data.tokens.xray import XRay
from profiles.problem import Problem, printable
from tui.commands import quality_text, status
from tui.commands.output import Output
from tui.commands.xray_text import legend, xray_lines
from tui.format import bytes_text, count_text, counted
from tui.terminal import Terminal

_REJECTS_SHOWN = 5
_SAMPLES_SHOWN = 2
_EXCERPT = 300
# Enough for a median and a longest that mean something, in a second.
_ROWS_MEASURED = 1000
_OF_MODELS = (".safetensors", ".gguf", ".bin", ".pt")
# Of a folder's files and folders; who gives a larger one without any data among the first says what it is with --shape.
_ENTRIES_LOOKED_AT = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that go with data."""
    parser.add_argument("--shape", choices=get_args(Shape), default="auto", help="data: what its rows are")
    parser.add_argument(
        "--column",
        metavar="PART=COLUMN",
        action="append",
        default=[],
        help="data: the column that plays a part, such as question=ask (repeatable)",
    )
    parser.add_argument("--model", metavar="M", type=Path, help="data: show a row as this model will learn it")
    parser.add_argument("--row", metavar="N", type=int, help="data: which row, by its line; else the first")
    parser.add_argument("--seq-len", metavar="N", type=int, help="data: tokens after which rows are cut")
    parser.add_argument(
        "--train-on", choices=("answers", "last_answer", "everything"), help="data: which tokens are learnt"
    )
    parser.add_argument(
        "--chat-template", metavar="T", default="model", help="data: the model's, a known one's name, or a .jinja file"
    )
    quality_text.add_arguments(parser)


def is_data(path: Path) -> bool:
    """Whether a folder holds data rather than a model."""
    if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
        return False
    try:
        if any(each.suffix in _OF_MODELS for each in path.iterdir()):
            return False
    except OSError:
        return False
    return any(map(_names_data, islice(path.rglob("*"), _ENTRIES_LOOKED_AT)))


def run(path: Path, arguments: argparse.Namespace, output: Output) -> int:
    if str(path) == "-":
        from engine.data.files import spool_stdin

        path = spool_stdin(sys.stdin.buffer)
    source = Source(path.absolute(), shape=arguments.shape, columns=_columns(arguments.column))
    if arguments.report:
        return quality_text.run(arguments, source, output)
    found = preview(source)
    refusal = _refusal(found)
    told: dict[str, Any] = {}
    if arguments.model is not None and found.samples:  # else the refusal says why there is no row to look at
        with Desk(arguments.model.expanduser(), arguments.chat_template) as desk:
            told = _ask(desk, found, arguments)
    elif arguments.model is None and arguments.row is not None:
        raise Problem("--row", "says which row to show, but not for which model", "Give a model's folder with --model.")
    if arguments.json:
        problems = [refusal.as_dict()] if refusal else []
        output.json({"kind": "data", **found.as_dict(), **_as_json(told), "problems": problems})
    else:
        output.lines(list(_data_lines(found, with_samples=not told)))
        output.lines(list(_xray_text(told, found, output.terminal)) if told else [])
    if refusal:
        output.problem(refusal)
    return status.PROBLEM if refusal else status.DONE


def _columns(assignments: list[str]) -> dict[str, str]:
    if not assignments:
        return {}
    from engine.inputs import columns_said  # here, since it imports pydantic

    return columns_said(assignments)


def _names_data(path: Path) -> bool:
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    known = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".txt", ".md"}
    return bool(suffixes & known) and path.name not in ("config.json", "tokenizer.json")


def _refusal(found: DataPreview) -> Problem | None:
    """What a run would stop with that allows as many rejected rows as it does unless told otherwise."""
    if not found.reject_count and not found.unclear:
        return None
    from engine.spec import DataSection  # here, since pydantic takes longer to import than most files to read

    return found.refusal(DataSection.model_fields["max_rejected_share"].default)


def _ask(desk: Desk, found: DataPreview, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that takes the model's tokenizer. Raises Problem for a row that a run would set aside."""
    from engine.spec import DataSection

    defaults = DataSection.model_fields
    length = arguments.seq_len or defaults["sequence_length"].default
    if length < 8:
        raise Problem("--seq-len", f"is {length}, too short for any row", "Give 8 or more.")
    train_on = arguments.train_on or defaults["train_on"].default
    line = arguments.row or (found.samples[0].line if found.samples else 1)
    try:
        sequences = desk.xray(found.source, line, length, train_on)
    except Problem as problem:
        if "tool call" in problem.what and arguments.chat_template == "model":
            raise Problem(
                problem.where, problem.what, "Give --chat-template chatml, which writes tool calls."
            ) from None
        if "no chat template" not in problem.what or desk.has_template:
            raise
        name, reason = desk.suggested_template()
        raise Problem(problem.where, problem.what, f"Give --chat-template {name}: {reason}.") from None
    survey = desk.survey(found.source, _ROWS_MEASURED)
    tried = desk.tried
    return {
        "line": line,
        "sequence_length": length,
        "train_on": train_on,
        "chat_template": arguments.chat_template,
        "notes": [*desk.notes, *survey.notes(), *[tried] * bool(tried)],
        "sequences": sequences,
        "lengths": survey.lengths,
    }


def _as_json(told: dict[str, Any]) -> dict[str, Any]:
    if not told:
        return {}
    sequences: list[XRay] = told["sequences"]
    return {
        "tokens": _lengths(told["lengths"], told["sequence_length"]),
        "xray": {
            **{name: told[name] for name in ("line", "sequence_length", "train_on", "chat_template", "notes")},
            "sequences": [each.as_dict() for each in sequences],
        },
    }


def _lengths(measured: Sequence[RowLength], sequence_length: int) -> dict[str, int]:
    tokens = sorted(each.tokens for each in measured)
    return {
        "rows": len(tokens),
        "median": tokens[len(tokens) // 2] if tokens else 0,
        "p99": tokens[round(0.99 * (len(tokens) - 1))] if tokens else 0,
        "longest": tokens[-1] if tokens else 0,
        "rows_cut": sum(each.tokens > sequence_length for each in measured),
        "rows_without_answer": sum(each.prompt_tokens >= sequence_length for each in measured),
    }


def _data_lines(found: DataPreview, with_samples: bool) -> Iterator[str]:
    lengths = found.characters
    read = "" if found.complete else f" by estimate: the first {bytes_text(found.read_bytes)} were read"
    yield f"data        {found.path}"
    yield f"size        {bytes_text(found.bytes)}, {found.format}"
    yield f"rows        {count_text(found.estimated_rows)}{read}"
    yield f"kind        {KIND_WORDS[found.kind] if found.kind else 'not clear'}"
    yield f"fields      {found.shape or 'none that are known'}"
    if found.reading and found.reading.columns:
        parts = (f"{part} = {printable(column, 40)}" for part, column in found.reading.columns.items())
        yield f"columns     {', '.join(parts)}"
    yield (
        f"length      {count_text(lengths.median)} characters a row (median), "
        f"{count_text(lengths.p99)} (99 %), {count_text(lengths.maximum)} (longest)"
    )
    yield from (f"note        {note}" for note in found.told)
    yield from (f"or else     {suggestion.words}" for suggestion in found.suggestions)
    if found.reject_count:
        yield f"set aside   {counted(found.reject_count, 'row')}"
        # Where nothing tells what the columns are, every row has the one reason that stands below.
        shown = () if found.unclear else found.rejected[:_REJECTS_SHOWN]
        yield from (f"            {row}" for row in shown)
    for sample in found.samples[:_SAMPLES_SHOWN] if with_samples else ():
        yield ""
        yield f"{found.unit} {sample.line:,}:"
        yield from (f"  {word:<9} {printable(text, _EXCERPT)}" for word, text in spoken(sample.content))


def _xray_text(told: dict[str, Any], found: DataPreview, terminal: Terminal) -> Iterator[str]:
    length = told["sequence_length"]
    lengths = _lengths(told["lengths"], length)
    yield (
        f"tokens      {count_text(lengths['median'])} a row (median), {count_text(lengths['p99'])} (99 %), "
        f"{count_text(lengths['longest'])} (longest) of {counted(lengths['rows'], 'row')}"
    )
    yield (
        f"at {f'{length:,}':<8} {counted(lengths['rows_cut'], 'row')} would be cut, "
        f"{count_text(lengths['rows_without_answer'])} of them before any answer"
    )
    yield from (f"note        {note}" for note in told["notes"])
    yield ""
    yield f"{found.unit} {told['line']:,}, learning {told['train_on'].replace('_', ' ')}, at most {length:,} tokens:"
    for sequence in told["sequences"]:
        yield from xray_lines(sequence, terminal.columns, terminal.ascii)
    yield ""
    yield legend(terminal.ascii)
