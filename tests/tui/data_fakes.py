"""What the tests of the Data screen give it instead of the engine's children: tokens are words, nothing is started."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from screen_fakes import HOLD_SECONDS, MODELS, model_report

from engine.data.contents import Conversation, PlainText
from engine.data.source import Source
from engine.data.tokens.desk import RowLength, Survey
from engine.data.tokens.xray import XRay, XRayToken
from profiles.problem import Problem
from tui.widgets.data.board import Counts, DataChoice, DataPrepared, Progress
from tui.widgets.data.content import parts_of
from tui.widgets.data.findings import Finding, SetValue, Show
from tui.widgets.data.length_table import LengthTable
from tui.widgets.data.rows import SampleRow
from tui.widgets.data.sources import DataSources
from tui.widgets.new_run.places import Place

NOTES = ("her rash is back since Tuesday", "he slept badly and has a dry cough", "the new tablets make her dizzy")


def intake_rows(count: int = 60) -> list[dict[str, Any]]:
    """Clinic notes with their records; every twentieth is five times as long."""
    return [
        {
            "messages": [
                {"role": "system", "content": "You turn clinic messages into JSON records."},
                {"role": "user", "content": f"Note {number}: Ana Ruiz called, {NOTES[number % 3]}. "
                 + "She was seen before and would like to come on Friday. " * (40 if number % 20 == 19 else 1)},
                {"role": "assistant", "content": f'{{"name": "Ana Ruiz", "complaint": "{NOTES[number % 3]}"}}'},
            ]
        }
        for number in range(count)
    ]  # fmt: skip


def write_rows(path: Path, rows: Sequence[dict[str, Any]], broken: int = 0) -> Path:
    """A JSONL file of `rows`, with so many lines that cannot be used at its end."""
    bad = ['{"messages": []}'] * broken
    path.write_text("\n".join([*map(json.dumps, rows), *bad]))
    return path


@dataclass
class FakeDesk:
    """Every word and every space before it is a token; the chat template writes <|role|>."""

    data: FakeData
    model: Path = MODELS / "Llama-small"
    is_open: bool = True

    def xray(self, source: Source, line: int, sequence_length: int, train_on: str) -> Sequence[XRay]:
        self.data.xrayed.append(line)
        row = next(row for row, _ in self.data.sources().rows(source) if row.line == line)
        assert row.content is not None
        tokens: list[XRayToken] = []

        def add(text: str, trained: bool, special: bool = False, stop: bool = False) -> None:
            cut = len(tokens) >= sequence_length
            tokens.append(XRayToken(len(text), text, trained and not cut, special, stop, cut, trained))

        for part in parts_of(row.content):
            learnt = part.learnt or train_on == "everything"
            add(f"<|{part.word}|>", False, special=True)
            for word in re.findall(r"\n|\s?[^\s]+", part.text):
                add(word, learnt)
            add("<|end|>", learnt, special=True, stop=part.learnt)
        return [XRay("", tuple(tokens), (), {})]

    @property
    def notes(self) -> tuple[str, ...]:
        return self.data.tokenizer_notes

    @property
    def tried(self) -> str:
        return self.data.desk_tried

    def survey(self, source: Source, rows: int) -> Survey:
        return Survey(tuple(self.lengths(source, rows)), {}, {}, {})

    def lengths(self, source: Source, rows: int) -> Sequence[RowLength]:
        if self.data.template_problem is not None:
            raise self.data.template_problem
        found = []
        for row, _ in self.data.sources().rows(source):
            if isinstance(row.content, Conversation | PlainText):
                words = [len(text.split()) + 2 for text in row.content.texts()]
                found.append(RowLength(row.line, sum(words), sum(words[:-1])))
        return found[:rows]

    def suggested_template(self) -> tuple[str, str]:
        return ("gemma", "it has <start_of_turn>") if "Gemma" in self.model.name else ("chatml", "it has <|im_start|>")

    def close(self) -> None:
        self.data.desks -= self.is_open
        self.is_open = False


@dataclass
class FakeData:
    """Real readers and a real first look; what needs a tokenizer or a child is made up."""

    files: list[Path] = field(default_factory=list)
    desks: int = 0
    """Desks that are open."""
    xrayed: list[int] = field(default_factory=list)
    prepared: list[DataChoice] = field(default_factory=list)
    reported: list[int | None] = field(default_factory=list)
    template_problem: Problem | None = None
    tokenizer_notes: tuple[str, ...] = ()
    tried: str = ""
    """What a preparation tried to get out."""
    desk_tried: str = ""
    prepare_hold: threading.Event | None = None
    """An event that a preparation waits for after its first progress."""
    report_hold: threading.Event | None = None

    def sources(self) -> DataSources:
        return DataSources(
            data_places=lambda: [Place(path, path.name, "~/data") for path in self.files],
            model_places=lambda: [Place(MODELS / name, name, "~/models") for name in ("Llama-small", "Gemma-small")],
            inspect_model=model_report,
            desk=self.desk,
            prepare=self.prepare,
            report=self.report,
            find_personal=lambda text: [(at.start(), at.end(), "names") for at in re.finditer("Ana Ruiz", text)],
        )

    def desk(self, model: Path, chat_template: str) -> FakeDesk:
        self.desks += 1
        return FakeDesk(self, model)

    def prepare(self, choice: DataChoice) -> Iterator[Progress | DataPrepared]:
        self.prepared.append(choice)
        yield Progress("preparing", 0.34, 41_000, 130)
        assert self.prepare_hold is None or self.prepare_hold.wait(HOLD_SECONDS)
        lengths = Counter(row.tokens for row in FakeDesk(self).lengths(choice.sources[0].source(), 10**9))
        table = LengthTable(lengths, "tokens", complete=True)
        rows: list[SampleRow] = [row for row, _ in self.sources().rows(choice.sources[0].source())]
        # Every row that is cut here loses its answer, which stands at its end.
        lost = table.cut_rows(int(choice.settings.get("data.sequence_length", 1024)))
        aside = sum(row.content is None for row in rows) + lost
        yield DataPrepared(Counts(table.rows - lost, 0, aside, exact=True, held_out=3), table, self.tried)

    def report(self, choice: DataChoice, rows: int | None) -> Iterator[Progress | tuple[Finding, ...]]:
        self.reported.append(rows)
        yield Progress("reading", 0.5, 20_000, 4)
        assert self.report_hold is None or self.report_hold.wait(HOLD_SECONDS)
        yield (
            Finding("bad", "3 held-out rows are among the training rows", ("line 7: Note 7: Ana Ruiz called",),
                    SetValue("data.duplicates", "drop_exact", "set exact copies aside"), frozenset({7, 9})),
            Finding("warn", "60 rows name a person", ("line 1: [NAME] called, her rash is back",
                    "line 2: [NAME] called, he slept badly"), SetValue("data.personal", "mask", "mask them")),
            Finding("warn", "1 answer is that of 20 rows", ("line 3",), Show("sample", "see them")),
            Finding("good", "languages: English 100 %"),
        )  # fmt: skip
