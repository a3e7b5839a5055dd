"""`finetui inspect PATH`: what a model directory or a data file is, and what is wrong with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.data.preview import DataPreview, preview
from engine.data.shapes import PlainText
from profiles.geometry import inspect_model
from profiles.problem import Problem, printable
from tui.commands import status
from tui.commands.output import Output
from tui.format import bytes_text, compact_text, count_text, counted

_REJECTS_SHOWN = 5
_SAMPLES_SHOWN = 2
_EXCERPT = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help="a model's folder, or a JSONL file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, output: Output) -> int:
    path = arguments.path.expanduser()
    if not path.exists() and not path.is_symlink():
        raise Problem(str(path), "there is no such file or folder", "Check the path.")
    return (_model if path.is_dir() else _data)(path.absolute(), arguments.json, output)


def _model(path: Path, as_json: bool, output: Output) -> int:
    report = inspect_model(path)
    if as_json:
        output.json(report.as_dict())
    elif geometry := report.geometry:
        context = f"{count_text(geometry.context_length)} tokens" if geometry.context_length else "not told"
        facts = [
            ("model", str(path)),
            ("type", f"{geometry.architecture} ({geometry.model_type})"),
            ("parameters", compact_text(geometry.parameters)),
            ("weights", f"{bytes_text(geometry.weight_bytes)} as {geometry.dtype.lower()}"),
            (
                "shape",
                f"{counted(geometry.layers, 'layer')}, {count_text(geometry.hidden_size)} wide, "
                f"{counted(geometry.heads, 'head')} ({geometry.kv_heads} for keys and values)",
            ),
            ("vocabulary", f"{count_text(geometry.vocab_size)} tokens"),
            ("context", context),
            ("tokenizer", report.tokenizer or "none"),
            ("template", "has a chat template" if report.has_chat_template else "none"),
        ]
        output.lines([f"{name:<11} {text}" for name, text in facts])
        output.lines([f"note        {note}" for note in report.notes])
    for problem in report.problems:
        output.problem(problem)
    return status.PROBLEM if report.problems else status.DONE


def _data(path: Path, as_json: bool, output: Output) -> int:
    found = preview(path)
    refusal = _refusal(found) if found.reject_count else None
    if as_json:
        output.json({"kind": "data", **found.as_dict(), "problems": [refusal.as_dict()] if refusal else []})
    else:
        output.lines(_data_lines(found))
    if refusal:
        output.problem(refusal)
    return status.PROBLEM if refusal else status.DONE


def _refusal(found: DataPreview) -> Problem | None:
    """What a run would stop with that allows as many rejected rows as it does unless told otherwise."""
    from engine.spec import DataSection  # here, since pydantic takes longer to import than most files to read

    return found.refusal(DataSection.model_fields["max_rejected_share"].default)


def _data_lines(found: DataPreview) -> list[str]:
    lengths = found.characters
    read = "" if found.complete else f" by estimate: the first {bytes_text(found.read_bytes)} were read"
    lines = [
        f"data        {found.path}",
        f"size        {bytes_text(found.bytes)}",
        f"rows        {count_text(found.estimated_rows)}{read}",
        f"fields      {found.shape or 'none that are known'}",
        f"length      {count_text(lengths.median)} characters a row (median), "
        f"{count_text(lengths.p99)} (99 %), {count_text(lengths.maximum)} (longest)",
    ]
    lines += [f"note        {note}" for note in found.notes]
    if found.reject_count:
        lines.append(f"set aside   {counted(found.reject_count, 'row')}")
        lines += [f"            {row}" for row in found.rejected[:_REJECTS_SHOWN]]
    for sample in found.samples[:_SAMPLES_SHOWN]:
        lines += ["", f"line {sample.line:,}:"]
        content = sample.content
        if isinstance(content, PlainText):
            lines.append(f"  {printable(content.text, _EXCERPT)}")
        else:
            lines += [f"  {each.role:<9} {printable(each.content, _EXCERPT)}" for each in content.messages]
    return lines
