"""What the Data screen asks of the engine, in one value, so that tests can give it something else.

All of these block (they read files or wait for a child process) and are called from threads only. They import what
they need when called. What gives an iterator works while it is iterated; closing it ends its child.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.data.source import Source
from tui.widgets.data import children
from tui.widgets.data.board import DataChoice, DataPrepared, Progress
from tui.widgets.data.findings import Finding
from tui.widgets.data.rows import PersonalSpan, SampleRow
from tui.widgets.new_run.places import Place, former_specs, found_data, model_places

if TYPE_CHECKING:
    from engine.data.preview import DataPreview
    from engine.data.tokens.desk import Survey
    from engine.data.tokens.xray import TrainOn, XRay
    from profiles.geometry import ModelReport


class TokenDesk(Protocol):
    """A tokenizer that answers questions about single rows; its calls may raise Problem."""

    def xray(self, source: Source, line: int, sequence_length: int, train_on: TrainOn) -> Sequence[XRay]:
        """The row's tokens, a value for each of its sequences."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the tokenizer and the choice of template."""

    @property
    def tried(self) -> str:
        """What it tried to get out of its seal, as a sentence; empty where it tried nothing."""

    def survey(self, source: Source, rows: int) -> Survey:
        """How long the first `rows` rows are, and what becomes of them."""

    def suggested_template(self) -> tuple[str, str]:
        """The known chat template that suits the model best, and why."""

    def close(self) -> None: ...


def _inspect_model(path: Path) -> ModelReport:
    from profiles.geometry import inspect_model

    return inspect_model(path)


def _preview(source: Source) -> DataPreview:
    from engine.data.preview import preview

    return preview(source)


def _rows(source: Source) -> Iterator[tuple[SampleRow, float]]:
    from engine.data.contents import Unusable
    from engine.data.files import open_rows
    from engine.data.preview import first_reading
    from engine.data.rows import RejectedRow
    from engine.data.shapes import Recogniser

    if source.prompt_template or source.answer_template:
        yield from _rows_of_template(source)
        return
    recogniser = Recogniser(source, first_reading(source))
    with open_rows(source) as reader:
        for row in reader:
            share = reader.position_bytes / max(1, reader.size_bytes)
            if isinstance(row, RejectedRow):
                yield SampleRow(row.line, None, row.reason, row.excerpt, row.unit), share
                continue
            try:
                yield SampleRow(row.line, recogniser.recognise(row.value).content, unit=reader.unit), share
            except Unusable as reason:
                rejected = reader.rejection(row, str(reason))
                yield SampleRow(row.line, None, rejected.reason, rejected.excerpt, rejected.unit), share


def _rows_of_template(source: Source) -> Iterator[tuple[SampleRow, float]]:
    """The first rows only: a person's own template runs in the child that takes the first look, never in the app."""
    found = _preview(source)
    rows = [SampleRow(each.line, each.content, unit=found.unit) for each in found.samples]
    rows += [SampleRow(each.line, None, each.reason, each.excerpt, each.unit) for each in found.rejected]
    for number, row in enumerate(sorted(rows, key=lambda row: row.line), 1):
        yield row, number / max(1, found.estimated_rows)


def _desk(model: Path, chat_template: str) -> TokenDesk:
    from engine.data.tokens.desk import Desk

    return Desk(model, chat_template)


def _find_personal(text: str) -> Sequence[PersonalSpan]:
    from engine.data.personal.finder import find_personal
    from engine.data.personal.found import WORDS

    return [(found.start, found.end, WORDS[found.kind]) for found in find_personal(text)]


def _templates() -> Sequence[str]:
    from engine.data.tokens.templates import KNOWN_TEMPLATES

    return tuple(KNOWN_TEMPLATES)


@dataclass(frozen=True, slots=True)
class DataSources:
    data_places: Callable[[], Sequence[Place]] = found_data
    """Files and folders to choose data from."""
    model_places: Callable[[], Sequence[Place]] = lambda: model_places(former_specs())
    """Folders to choose a model from."""
    inspect_model: Callable[[Path], ModelReport] = _inspect_model
    preview: Callable[[Source], DataPreview] = _preview
    """A first look at a source. Raises Problem."""
    rows: Callable[[Source], Iterator[tuple[SampleRow, float]]] = _rows
    """All rows of a source in order, each with the share of the source read up to it. Raises Problem."""
    desk: Callable[[Path, str], TokenDesk] = _desk
    """A model's tokenizer with the chat template of that name. Raises Problem."""
    prepare: Callable[[DataChoice], Iterator[Progress | DataPrepared]] = children.prepare
    """Tokenise every row, as a run would. Raises Problem."""
    report: Callable[[DataChoice, int | None], Iterator[Progress | tuple[Finding, ...]]] = children.report
    """The quality of the first so many rows, or of all. Raises Problem."""
    find_personal: Callable[[str], Sequence[PersonalSpan]] = _find_personal
    """The personal data in a text, in order."""
    templates: Callable[[], Sequence[str]] = _templates
    """Names of the chat templates that finetui knows. Takes no time."""
