"""In which order the Data screen finds things out: a first look, rows to read, lengths, then all of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from textual.timer import Timer

from engine.data.source import Source
from profiles.problem import Problem
from tui.widgets.data.board import DataBoard, DataPrepared, Progress
from tui.widgets.data.findings import Finding
from tui.widgets.data.report import ReportView
from tui.widgets.data.rows import SampleRow, Wanted
from tui.widgets.data.sample import SampleView
from tui.widgets.data.sources import DataSources
from tui.widgets.data.work import DataWork, Lengths
from tui.widgets.data.xray import XRayView

if TYPE_CHECKING:
    from engine.data.preview import DataPreview
    from engine.data.tokens.xray import XRay
    from tui.screens.data import DataScreen

REST_SECONDS = 0.4
"""Changes of how a source is read come in a row; it is read anew once a person rests."""
PREPARE_SECONDS = 1.5
"""Preparing takes every core; it begins once a person has stopped changing what it depends on."""


class DataFlow:
    """Fills the board and the views of a screen; whatever a change makes stale is found out again."""

    def __init__(self, screen: DataScreen, sources: DataSources, board: DataBoard):
        self._screen, self._board = screen, board
        self._work = DataWork(screen, sources, board)
        self._rest: Timer | None = None
        self._prepare_rest: Timer | None = None

    def close(self) -> None:
        self._work.close()

    def read(self) -> None:
        """Find out all that is not known of the sources."""
        self._stop_preparing()
        for index, state in enumerate(self._board.sources):
            if state.preview is None:
                self._work.look(index, self._looked)
        self.show_rows(Wanted())
        if all(state.preview is not None for state in self._board.sources):
            self.count()
        self._screen.repaint()

    def read_soon(self) -> None:
        """The same once a person has stopped changing how a source is read."""
        self._stop_preparing()
        if self._rest is not None:
            self._rest.stop()
        self._rest = self._screen.set_timer(REST_SECONDS, self.read)
        self._screen.repaint()

    def show_rows(self, wanted: Wanted) -> None:
        sample = self._screen.query_one(SampleView)
        sample.begin(wanted)
        self._work.rows(wanted, self._rows_read)
        self._screen.repaint()

    def count(self) -> None:
        """Count lengths of the first rows, then prepare every row once a person rests."""
        self._stop_preparing()
        if self._board.lengths is None or not self._board.lengths.complete:
            self._work.lengths(self._counted)
        self.xray()
        if self._board.model is not None:
            self._prepare_rest = self._screen.set_timer(PREPARE_SECONDS, self._prepare)
        self._screen.repaint()

    def settings_changed(self) -> None:
        """A setting was moved: the counts of all rows no longer stand. What was tokenised is kept and used again."""
        if all(state.preview is not None for state in self._board.sources) and self._board.unreadable() is None:
            self.count()
        self._screen.repaint()

    def xray(self) -> None:
        """Show the tokens of the row under the sample's cursor, where they are looked at."""
        if self._screen.view != "xray":
            return
        view, row = self._screen.query_one(XRayView), self._screen.query_one(SampleView).row
        view.begin(row)
        if row is not None and row.content is not None and self._board.model is not None:
            self._work.xray(row, self._xrayed)

    def report(self, whole: bool) -> None:
        """Look into the quality of the first rows, or of every row."""
        if self._board.unreadable() is None and self._board.sources:
            self._screen.query_one(ReportView).begin(whole)
            self._work.report(whole, partial(self._reported, self._reported_on))
            self._screen.repaint()

    # What was found

    def _looked(self, index: int, source: Source, found: DataPreview | Problem) -> None:
        state = self._board.sources[index] if index < len(self._board.sources) else None
        if state is None or state.section.source() != source:
            return  # it was taken off the table, or is read in another way by now
        state.looked(found)
        if all(each.preview is not None for each in self._board.sources) and self._board.unreadable() is None:
            self.count()
        self._screen.repaint()

    def _rows_read(self, read: object) -> None:
        self._screen.query_one(SampleView).add(read)  # type: ignore[arg-type]
        self.xray()
        self._screen.repaint()

    def _counted(self, found: Lengths | Problem) -> None:
        if isinstance(found, Problem):
            self._board.template_problem = found
            if self._board.suggested_template is None and self._board.model is not None:
                self._work.suggest_template(self._suggested)
        else:
            self._board.template_problem, self._board.prompts = None, found.prompts
            self._board.token_findings = found.findings
            if self._board.prepared is None:
                self._board.lengths = found.rows
        self._screen.repaint()

    def _suggested(self, template: tuple[str, str]) -> None:
        self._board.suggested_template = template
        self._screen.repaint()

    def _xrayed(self, row: SampleRow, found: Sequence[XRay] | Problem) -> None:
        self._screen.query_one(XRayView).show(row, found)

    @property
    def _reported_on(self) -> tuple[object, ...]:
        """What a report is about."""
        choice = self._board.choice()
        return tuple(section.source() for section in choice.sources), choice.held_out, choice.model

    def _reported(self, on: tuple[object, ...], told: Progress | tuple[Finding, ...] | Problem) -> None:
        view = self._screen.query_one(ReportView)
        if on != self._reported_on:  # read in another way by now, or for another model
            self._work.cancel("report")
            view.end()
            if self._screen.view == "report":
                self.report(view.whole)
            return
        if isinstance(told, Progress):
            view.tell(told)
            return
        if isinstance(told, Problem):
            view.end(told)
        else:
            self._board.findings = told
            view.end()
        self._screen.repaint()

    # Every row

    def _prepare(self) -> None:
        if self._board.problem() is None and self._board.template_problem is None:
            self._work.prepare(self._prepared)

    def _stop_preparing(self) -> None:
        if self._prepare_rest is not None:
            self._prepare_rest.stop()
        self._work.cancel("prepare")
        self._board.progress = self._board.prepared = self._board.prepare_problem = None

    def _prepared(self, told: Progress | DataPrepared | Problem) -> None:
        if isinstance(told, Progress):
            self._board.progress = told
        else:
            self._board.progress = None
            if isinstance(told, Problem):
                self._board.prepare_problem = told
            else:
                self._board.lengths = told.lengths
                self._board.prepared = told.counts
                self._board.tried = told.tried
        self._screen.repaint()
