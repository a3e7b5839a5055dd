"""What the Data screen has done in threads: each kind of work is one at a time, and the latest wins."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

from textual.screen import Screen
from textual.worker import get_current_worker

from engine.data.source import Source
from profiles.problem import Problem
from tui.telling import tell
from tui.widgets.data.board import DataBoard, DataChoice, DataPrepared, Progress
from tui.widgets.data.findings import (
    REPORT_ROWS,
    Finding,
    findings_of_notes,
    findings_of_survey,
    findings_of_tries,
)
from tui.widgets.data.length_table import LengthTable
from tui.widgets.data.rows import RowsRead, SampleRow, Wanted, search
from tui.widgets.data.sources import DataSources, TokenDesk

if TYPE_CHECKING:
    from engine.data.preview import DataPreview
    from engine.data.tokens.xray import XRay

Told = TypeVar("Told")
P = ParamSpec("P")

ROWS_SHOWN = 500
"""Rows in the list at once: nobody scrolls through more, the search finds the others."""
ROWS_COUNTED = 500
"""Rows whose tokens are counted before all are: a tokenizer takes a fraction of a second for them."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of the first rows: how long they are, and what stands before their first answer."""

    rows: LengthTable
    prompts: LengthTable
    findings: tuple[Finding, ...]
    """On rows as the model reads them, on its tokenizer and on the chat template."""


class DataWork:
    """Starts the work for a screen and calls back on its event loop. `close` ends everything, children included."""

    def __init__(self, screen: Screen, sources: DataSources, board: DataBoard):
        self._screen, self._sources, self._board = screen, sources, board
        self._desk: TokenDesk | None = None
        self._desk_for: tuple[object, str] | None = None
        self._one_question = threading.Lock()
        """A desk answers one question at a time."""
        self._closed = False

    def close(self) -> None:
        self._screen.workers.cancel_node(self._screen)
        self._closed = True
        if self._desk is not None:
            self._desk.close()  # whoever waits for its answer is told that there is none

    def cancel(self, group: str) -> None:
        self._screen.workers.cancel_group(self._screen, group)

    def look(self, index: int, done: Callable[[int, Source, DataPreview | Problem], None]) -> None:
        """Take a first look at a source."""
        source = self._board.sources[index].section.source()

        def work() -> None:
            found: DataPreview | Problem
            try:
                found = self._sources.preview(source)
            except Problem as problem:
                found = problem
            tell(done, index, source, found)

        self._start(work, f"look {index}")

    def rows(self, wanted: Wanted, some: Callable[[RowsRead], None]) -> None:
        """Find the wanted rows of the shown source; `some` gets them as they are found."""
        source = self._board.source.section.source()

        def work() -> None:
            worker = get_current_worker()
            self._sources.find_personal("")  # its patterns are made here, off the event loop
            try:
                for read in search(self._sources.rows(source), wanted, ROWS_SHOWN, lambda: worker.is_cancelled):
                    tell(some, read)
            except Problem:
                tell(some, RowsRead((), 1.0, done=True))  # the first look has told what it is

        self._start(work, "rows")

    def lengths(self, done: Callable[[Lengths | Problem], None]) -> None:
        """Count the lengths of the first rows of all sources: in tokens, or without a model in characters."""
        choice, board = self._board.choice(), self._board
        done = self._unless_changed(choice, done)

        def work() -> None:
            worker = get_current_worker()
            counts: Counter[int] = Counter()
            prompts: Counter[int] = Counter()
            findings: dict[Finding, None] = {}  # each once, whatever number of sources it is true of
            try:
                for section in choice.sources:
                    if choice.model is None:
                        counts.update(self._characters(section.source(), lambda: worker.is_cancelled))
                    else:
                        with self._asking(choice) as desk:
                            survey = desk.survey(section.source(), ROWS_COUNTED)
                            notes, tried = desk.notes, desk.tried
                        name = section.path.name if len(choice.sources) > 1 else ""
                        read = [*findings_of_notes(notes), *findings_of_survey(survey, name)]
                        findings |= dict.fromkeys([*findings_of_tries([tried]), *read])
                        counts.update(row.tokens for row in survey.lengths)
                        prompts.update(row.prompt_tokens for row in survey.lengths)
            except Problem as problem:
                tell(done, problem)
                return
            usable = sum(state.found.usable_rows for state in board.sources if state.found and state.found.complete)
            complete = usable == counts.total() and all(state.found for state in board.sources)
            unit: Literal["tokens", "characters"] = "tokens" if choice.model else "characters"
            table, before = LengthTable(counts, unit, complete), LengthTable(prompts, unit)
            tell(done, Lengths(table, before, tuple(findings)))

        self._start(work, "lengths")

    def suggest_template(self, done: Callable[[tuple[str, str]], None]) -> None:
        """Find the known chat template that suits the model, whose own cannot be used."""
        choice = self._board.choice()
        done = self._unless_changed(choice, done)

        def work() -> None:
            with suppress(Problem):
                with self._asking(choice) as desk:
                    found = desk.suggested_template()
                tell(done, found)

        self._start(work, "template")

    def xray(self, row: SampleRow, done: Callable[[SampleRow, Sequence[XRay] | Problem], None]) -> None:
        """Find the tokens of a row of the shown source."""
        choice, board = self._board.choice(), self._board
        source, length, train_on = board.source.section.source(), board.sequence_length, board.value("data.train_on")

        def work() -> None:
            worker = get_current_worker()
            found: Sequence[XRay] | Problem
            try:
                with self._asking(choice) as desk:
                    if worker.is_cancelled:
                        return
                    found = desk.xray(source, row.line, length, train_on)
            except Problem as problem:
                found = problem
            tell(done, row, found)

        self._start(work, "xray")

    def prepare(self, step: Callable[[Progress | DataPrepared | Problem], None]) -> None:
        """Tokenise every row, as the run will; what is done is kept for it."""
        choice = self._board.choice()
        self._follow(lambda: self._sources.prepare(choice), self._unless_changed(choice, step), "prepare")

    def report(self, whole: bool, step: Callable[[Progress | tuple[Finding, ...] | Problem], None]) -> None:
        """Look into the quality of the first rows, or of every row."""
        choice = self._board.choice()
        self._follow(lambda: self._sources.report(choice, None if whole else REPORT_ROWS), step, "report")

    # How it is done

    def _unless_changed(self, choice: DataChoice, done: Callable[P, None]) -> Callable[P, None]:
        """`done`, but not where the board holds another choice by then, for which it is all found out anew."""

        def told(*values: P.args, **named: P.kwargs) -> None:
            if self._board.choice() == choice:
                done(*values, **named)

        return told

    def _follow(self, begin: Callable[[], Iterator[Told]], step: Callable[[Told | Problem], None], group: str) -> None:
        def work() -> None:
            worker = get_current_worker()
            try:
                told = begin()
                for each in told:
                    if worker.is_cancelled:
                        told.close()  # type: ignore[attr-defined]  # a generator: closing it ends the child
                        return
                    tell(step, each)
            except Problem as problem:
                tell(step, problem)

        self._start(work, group)

    def _start(self, work: Callable[[], None], group: str) -> None:
        self._screen.run_worker(work, thread=True, exclusive=True, group=group)

    def _characters(self, source: Source, is_cancelled: Callable[[], bool]) -> Counter[int]:
        read = search(self._sources.rows(source), Wanted(), ROWS_COUNTED, is_cancelled)
        return Counter(row.characters for portion in read for row in portion.rows if row.content is not None)

    @contextmanager
    def _asking(self, choice: DataChoice) -> Iterator[TokenDesk]:
        """The desk for the chosen model and template, for one question."""
        with self._one_question:
            desk = self._desk_of(choice)
            try:
                yield desk
            finally:
                if self._closed:  # perhaps before it was made, or before its child was started
                    desk.close()

    def _desk_of(self, choice: DataChoice) -> TokenDesk:
        """The desk for the chosen model and template; `_one_question` is held."""
        assert choice.model is not None
        template = str(choice.settings.get("data.chat_template", "model"))
        if self._desk is None or self._desk_for != (choice.model, template):
            if self._desk is not None:
                self._desk.close()
            self._desk = None
            self._desk = self._sources.desk(choice.model, template)
            self._desk_for = (choice.model, template)
        return self._desk
