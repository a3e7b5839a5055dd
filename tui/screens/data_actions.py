"""What the keys of the Data screen do."""

from __future__ import annotations

from textual import on
from textual.widgets import Input

from tui.keys import KeyedScreen
from tui.widgets.data.board import OF_TOKENS, DataBoard
from tui.widgets.data.columns import ColumnsView
from tui.widgets.data.findings import Again, Finding, ReadAs, Show
from tui.widgets.data.flow import DataFlow
from tui.widgets.data.keys import CHOOSING, VIEWS
from tui.widgets.data.ledger import DataLedger
from tui.widgets.data.mix import MixView
from tui.widgets.data.report import ReportView
from tui.widgets.data.rows import Wanted
from tui.widgets.data.sample import SampleView
from tui.widgets.data.sources import DataSources
from tui.widgets.data.view import DataView
from tui.widgets.data.xray import XRayView
from tui.widgets.new_run.data import DataStep
from tui.widgets.new_run.source import SourceStep


class DataActions(KeyedScreen):
    """A method for each key; what they work on is the DataScreen's."""

    sources: DataSources
    board: DataBoard
    flow: DataFlow
    view: str
    """What is shown: one of the views, or a choice of file or model."""
    gives_back: bool
    begun_with_choice: bool
    came_from: str
    """The view from which a file or a model is chosen; "" where the choice of files came first."""

    def open_view(self, view: str) -> None:
        """Show a view, or a choice of file or model."""
        raise NotImplementedError

    @property
    def shown(self) -> DataView:
        """The view on the screen; the choices of file and model are none."""
        return self.query_one(f"#{self.view}", DataView)

    @property
    def finding(self) -> Finding | None:
        """What f would mend: what is chosen in the report, or else the warning at the foot."""
        chosen = self.query_one(ReportView).finding if self.view == "report" else None
        return chosen if chosen is not None and chosen.fix is not None else self.query_one(DataLedger).warning

    @property
    def _sample(self) -> SampleView:
        return self.query_one(SampleView)

    def do_take(self) -> None:
        choice = self.board.choice()
        if self.gives_back:
            self.dismiss(choice)
            return
        from tui.screens.new_run import NewRunScreen

        self.app.switch_screen(NewRunScreen(data=choice))

    def do_back(self) -> None:
        entry = self.query_one(Input)
        if entry.display:
            self._close_entry()
        elif self.view in CHOOSING and self.came_from in VIEWS:
            self.open_view(self.came_from)
        elif self.view in CHOOSING:
            self.dismiss()
        elif not self._sample.wanted.is_all and self.view == "sample":
            self.flow.show_rows(Wanted())
        elif self.begun_with_choice:
            self.dismiss()
        else:
            self.open_view("choose")
            self.came_from = ""

    def do_find(self) -> None:
        if self.view in CHOOSING:
            self.query_one(f"#{self.view}", SourceStep).picker.enter_line("")
        else:
            self._open_entry("words that a row must hold; Enter searches the file", self._sample.wanted.words)

    def do_add_file(self) -> None:
        self.query_one(DataStep).toggle_train()

    def do_hold_out(self) -> None:
        self.query_one(DataStep).toggle_held_out()

    def do_sample(self) -> None:
        self.open_view("sample")

    def do_xray(self) -> None:
        self.open_view("xray")

    def do_lengths(self) -> None:
        self.open_view("lengths")

    def do_columns(self) -> None:
        self.open_view("columns")

    def do_report(self) -> None:
        self.open_view("report")

    def do_mix(self) -> None:
        self.open_view("mix")

    def do_next_view(self) -> None:
        names: list[str] = list(VIEWS)
        self.open_view(names[(names.index(self.view) + 1) % len(names)])

    def do_model(self) -> None:
        self.open_view("model")

    def do_add(self) -> None:
        choice = self.board.choice()
        self.query_one(DataStep).take(choice.paths, choice.held_out_path)
        self.open_view("choose")

    def do_remove(self) -> None:
        self.query_one(MixView).take_out()

    def do_filter(self) -> None:
        if self.view == "report":
            finding = self.query_one(ReportView).finding
            assert finding is not None
            self.flow.show_rows(Wanted(lines=finding.lines))
            self.open_view("sample")
            return
        filters = self._sample.filters()
        at = filters.index(self._sample.wanted.filter) if self._sample.wanted.filter in filters else 0
        self.flow.show_rows(self._wanted(filters[(at + 1) % len(filters)], self._sample.wanted.words))

    def do_borders(self) -> None:
        self.query_one(XRayView).toggle_borders()

    def do_less(self) -> None:
        self._step(-1)

    def do_more(self) -> None:
        self._step(1)

    def _step(self, direction: int) -> None:
        if self.view == "xray":
            self._sample.move(direction)
        else:
            self.shown.change(direction)

    def do_type(self) -> None:
        setting = self.query_one(ColumnsView).setting
        assert setting is not None
        self._open_entry(setting.label, getattr(self.board.source.section, setting.field))

    def do_reset(self) -> None:
        self.shown.reset()  # type: ignore[attr-defined]  # of the views that have the key

    def do_whole(self) -> None:
        self.flow.report(whole=True)

    def do_down(self) -> None:
        self.shown.move(1)

    def do_up(self) -> None:
        self.shown.move(-1)

    def do_first(self) -> None:
        self.shown.move(-(10**6))

    def do_last(self) -> None:
        self.shown.move(10**6)

    def do_page_down(self) -> None:
        self.shown.page(1)

    def do_page_up(self) -> None:
        self.shown.page(-1)

    def do_warning(self) -> None:
        self.query_one(DataLedger).next_warning()

    def do_fix(self) -> None:
        """Do what stands beside the warning, or in the report beside the finding."""
        assert self.finding is not None and self.finding.fix is not None
        fix = self.finding.fix
        if isinstance(fix, Show):
            if fix.filter:
                self.flow.show_rows(self._wanted(fix.filter, ""))
            elif fix.lines:
                self.flow.show_rows(Wanted(lines=fix.lines))
            self.open_view(fix.view)
            return
        if isinstance(fix, ReadAs):
            self.board.read_as(fix.index, fix.source)
            self.flow.read()
            return
        if isinstance(fix, Again):
            self.flow.count()
            return
        self.board.set(fix.setting, fix.value)
        if fix.setting in OF_TOKENS:
            self.board.forget_tokens()
        self.flow.settings_changed()

    def _wanted(self, filter: str, words: str) -> Wanted:
        length, find_personal = self.board.sequence_length, self.sources.find_personal
        return Wanted(filter, words, sequence_length=length, has_personal=lambda text: bool(find_personal(text)))

    # What is typed

    def _open_entry(self, placeholder: str, value: str) -> None:
        entry = self.query_one(Input)
        entry.placeholder, entry.value, entry.display = placeholder, value, True
        entry.select_all()
        self.set_focus(entry)

    def _close_entry(self) -> None:
        self.query_one(Input).display = False
        self.set_focus(None)

    @on(Input.Submitted, "#entry")
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self._close_entry()
        if self.view == "columns":
            self.query_one(ColumnsView).type(event.value)
        else:
            self.flow.show_rows(self._wanted(self._sample.wanted.filter, event.value.strip()))
