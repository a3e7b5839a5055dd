"""Runs in a child process: answers a Desk's questions about single rows, one JSON object a line on stdin and stdout.

{"do": "open", "model", "chat_template"} comes first; then {"do": "xray", "source", "line", "sequence_length",
"train_on"} and {"do": "survey", "source", "rows"}. Each is answered by one line: {"kind": "answer", "value"}, or
{"kind": "problem", "where", "what", "fix"}.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from engine.child_process import limit_address_space, take_stdout
from engine.data.contents import Content, Unusable
from engine.data.files import RowReader, open_rows
from engine.data.preview import first_reading
from engine.data.rows import RejectedRow, Row, shown
from engine.data.shapes import Recogniser
from engine.data.source import Source
from engine.data.tokens.loading import load_text_tokenizer
from engine.data.tokens.tokeniser import Tokeniser
from engine.data.tokens.xraying import xray
from engine.run.sealing.telling import tell_tries
from profiles.problem import Problem

# Room for the largest tokenizers and rows; a template that builds a text of ten times that ends this process alone.
_ADDRESS_SPACE_BYTES = 8 << 30
_BATCH_ROWS = 256


class _Desk:
    def __init__(self, model: Path, chat_template: str):
        self._tokenizer = load_text_tokenizer(model, chat_template)
        self._tokeniser = Tokeniser(self._tokenizer)
        self._recognisers: dict[str, Recogniser] = {}
        self._source = ""
        self._reader: RowReader | None = None
        self._line = 0

    def about(self) -> dict[str, Any]:
        tokenizer = self._tokenizer
        return {
            "template_name": tokenizer.template_name,
            "has_template": tokenizer.chat_template is not None,
            "special": list(tokenizer.special.values()),
            "notes": list(tokenizer.notes),
        }

    def xray(self, source: Source, line: int, sequence_length: int, train_on: Any) -> list[dict[str, Any]]:
        row = self._row(source, line)
        assert self._reader is not None
        try:
            content = self._recogniser(source).recognise(row.value).content
            found = xray(content, self._tokenizer, sequence_length, train_on, self._tokeniser)
        except Unusable as reason:
            raise _set_aside(self._reader.rejection(row, str(reason))) from None
        return [each.as_dict() for each in found]

    def survey(self, source: Source, rows: int) -> dict[str, Any]:
        """The fields of a Survey; a length is [line, tokens of the longest sequence, tokens before its answer]."""
        recogniser = self._recogniser(source)
        lengths: list[list[int]] = []
        set_aside: Counter[str] = Counter()
        altered: Counter[str] = Counter()
        warnings: Counter[str] = Counter()
        with open_rows(source) as reader:
            readable = islice(_readable(reader, recogniser), rows)
            while batch := list(islice(readable, _BATCH_ROWS)):
                results = self._tokeniser.tokenise([content for _, content in batch])
                for (line, _), result in zip(batch, results, strict=True):
                    if isinstance(result, Unusable):
                        set_aside[str(result)] += 1
                        continue
                    longest = max(result.sequences, key=len)
                    first = longest.answers[0][0] if longest.answers else 0
                    lengths.append([line, len(longest), first])
                    altered.update(result.altered)
                    warnings.update(result.warnings)
        return {"lengths": lengths, "set_aside": set_aside, "altered": altered, "warnings": warnings}

    def _recogniser(self, source: Source) -> Recogniser:
        key = json.dumps(asdict(source), default=str)
        if key not in self._recognisers:
            self._recognisers[key] = Recogniser(source, first_reading(source))
        return self._recognisers[key]

    def _row(self, source: Source, line: int) -> Row:
        """The row that begins at `line`; one further on than the last is read on to."""
        key = json.dumps(asdict(source), default=str)
        if self._reader is None or key != self._source or line <= self._line:
            self._close()
            self._reader, self._source, self._line = open_rows(source), key, 0
        for row in self._reader:
            self._line = row.line
            if row.line == line:
                if isinstance(row, RejectedRow):
                    raise _set_aside(row)
                return row
            if row.line > line:
                break
        last = self._line
        self._close()
        raise Problem(shown(source.path), f"has no row at {line:,}", f"The nearest one read is at {last:,}.")

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None


def _readable(reader: RowReader, recogniser: Recogniser) -> Iterator[tuple[int, Content]]:
    for row in reader:
        if isinstance(row, RejectedRow):
            continue
        try:
            yield row.line, recogniser.recognise(row.value).content
        except Unusable:
            continue


def _set_aside(row: RejectedRow) -> Problem:
    return Problem(
        f"{row.path}, {row.unit} {row.line:,}", row.reason, "A run sets it aside; correct it to have it learnt."
    )


def _source(values: dict[str, Any]) -> Source:
    return Source(**{**values, "path": Path(values["path"])})


def _answer(desk: _Desk | None, asked: dict[str, Any]) -> tuple[_Desk, Any]:
    if asked["do"] == "open":
        desk = _Desk(Path(asked["model"]), asked["chat_template"])
        return desk, desk.about()
    assert desk is not None, "a desk is opened before it is asked"
    source = _source(asked["source"])
    if asked["do"] == "xray":
        return desk, desk.xray(source, asked["line"], asked["sequence_length"], asked["train_on"])
    assert asked["do"] == "survey"
    return desk, desk.survey(source, asked["rows"])


def main() -> None:
    limit_address_space(_ADDRESS_SPACE_BYTES)
    send = take_stdout()
    tell_tries()
    desk: _Desk | None = None
    for line in sys.stdin:
        try:
            desk, value = _answer(desk, json.loads(line))
        except Problem as problem:
            send("problem", **problem.as_dict())
        else:
            send("answer", value=value)


if __name__ == "__main__":
    main()
