"""Where a run's data came from, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from profiles.problem import printable
from tui.format import bytes_text

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
