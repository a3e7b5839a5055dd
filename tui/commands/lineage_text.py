"""Where a run's data came from, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.evidence.audit import read_audit
from engine.run.evidence.findings import DAMAGE
from profiles.problem import printable
from tui.format import bytes_text, counted, moment_text

_BASE_FILES_SHOWN = 8
# Kinds of content that no chat template writes.
_WITHOUT_TEMPLATE = ("text", "labelled", "similar")


def lineage_lines(data: Mapping[str, Any]) -> Iterator[str]:
    """The lines on the "data" section of a lineage.json; none where the data was not prepared yet."""
    for source in data.get("sources", ()):
        use = "held out" if source["is_held_out"] else "trained on"
        yield (
            f"source   {printable(source['path'], 300)}, {source['format']}, {bytes_text(source['size_bytes'])}, {use}"
        )
        yield f"         SHA-256 {source['sha256']}"
        yield f"         {_fates(source)}"
        columns = ", ".join(
            f"{part} = {printable(column, 40)}" for part, column in source["mapping"]["columns"].items()
        )
        yield f"         read as {source['mapping']['shape']}" + (f": {columns}" if columns else "")
    if not data:
        return
    template, tokenizer = data["chat_template"], data["tokenizer"]
    if data["kind"] not in _WITHOUT_TEMPLATE:
        named = "the model's own" if template["name"] == "model" else printable(template["name"], 200)
        yield f"template {named}, SHA-256 {template['sha256'][:16]}"
    yield f"tokens   tokenizer {tokenizer['sha256'][:16]}, {_split(data)}"
    if filters := _filters(data):
        yield f"filters  {filters}"


def evidence_lines(run: RunDirectory, lineage: Mapping[str, Any]) -> list[str]:
    """The lines on what else is known of a run for certain: its base's files, what it was made with, where it was
    exported to, and its audit log."""
    try:
        lines = [*_base_lines(lineage.get("base")), *_environment_lines(lineage.get("environment"))]
        for export in lineage.get("exports") or ():
            files = export["files"].values()
            told = f"{counted(len(files), 'file')}, {bytes_text(sum(each['bytes'] for each in files))}"
            place = printable(run.path / export["path"], 300)
            lines.append(f"exported {export['to']} to {place}, {told}, {moment_text(export['at'])}")
    except DAMAGE:
        lines = ["evidence lineage.json is damaged"]
    try:
        chain = read_audit(run)
    except OSError as error:
        return [*lines, f"audit    its log cannot be read: {error.strerror}"]
    if chain.entries:
        entries = counted(len(chain.entries), "entry", "entries")
        lines.append(f"audit    {entries}, head {chain.head}")
        lines.append(f"         whether all is as it was written down: finetui verify {run.name}")
    return lines


def _base_lines(base: Mapping[str, Any] | None) -> Iterator[str]:
    if base:
        files = base["files"]
        size = bytes_text(sum(each["bytes"] for each in files.values()))
        yield f"base     {printable(base['path'], 300)}, {counted(len(files), 'file')}, {size}"
        for name in sorted(files)[:_BASE_FILES_SHOWN]:
            yield f"         SHA-256 {files[name]['sha256']} {printable(name)}"
        if (more := len(files) - _BASE_FILES_SHOWN) > 0:
            yield f"         and {counted(more, 'more file')}"


def _environment_lines(environment: Mapping[str, Any] | None) -> Iterator[str]:
    if environment:
        names = ("finetui", "torch", "transformers", "peft", "bitsandbytes")
        told = [f"{name} {printable(environment[name])}" for name in names if name in environment]
        told += [printable(environment[name]) for name in ("device", "dtype") if name in environment]
        yield f"made by  {', '.join(told)}"


def _fates(source: Mapping[str, Any]) -> str:
    counts = {
        "trained": source["trained"],
        "held out": source["held_out"],
        "left out": source["left_out"],
        "set aside": source["set_aside"],
    }
    told = ", ".join(f"{count:,} {fate}" for fate, count in counts.items() if count)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in source["reasons"].items())
    cut = f"; {source['cut']:,} cut" if source["cut"] else ""
    return f"{source['rows']:,} rows: {told}" + (f" ({reasons})" if reasons else "") + cut


def _split(data: Mapping[str, Any]) -> str:
    by = [
        f"{word} {printable(data[key], 40)}"
        for key, word in (("group_by", "by"), ("stratify_by", "even in"))
        if data[key]
    ]
    share = "a file held out" if data["held_out_share"] is None else f"{data['held_out_share']:.0%} held out"
    return ", ".join([share, f"split seed {data['split_seed']}", *by])


def _filters(data: Mapping[str, Any]) -> str:
    """What was asked to be done to the rows."""
    told = []
    if data["rows"]:
        told.append(f"{data['rows']:,} rows only")
    if data["duplicates"] != "keep":
        told.append("exact copies dropped" if data["duplicates"] == "drop_exact" else "near copies dropped")
    if data["personal"] != "leave":
        told.append("personal data masked" if data["personal"] == "mask" else "personal data under pseudonyms")
    told += [f"none of {printable(path, 200)}" for path in data["benchmarks"]]
    return ", ".join(told)
