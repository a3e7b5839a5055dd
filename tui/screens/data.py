"""Data: choose files, see what the model will learn from them and what is wrong with them, and go on."""

from __future__ import annotations

from dataclasses import replace

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import ContentSwitcher, Input

from engine.data.source import Source
from tui.keys import APP_KEYS, Key, KeyedScreen
from tui.widgets.data_board import OF_TOKENS, DataBoard, DataChoice
from tui.widgets.data_columns import ColumnsView
from tui.widgets.data_findings import Finding, ReadAs, Show
from tui.widgets.data_flow import DataFlow
from tui.widgets.data_heading import DataTabs, DataTitle
from tui.widgets.data_keys import CHOOSING, EVERYWHERE, KEYS, VIEWS
from tui.widgets.data_ledger import DataLedger
from tui.widgets.data_lengths import LengthsView
from tui.widgets.data_mix import MixView
from tui.widgets.data_report import ReportView
from tui.widgets.data_rows import Wanted
from tui.widgets.data_sample import SampleView
from tui.widgets.data_sources import DataSources
from tui.widgets.data_view import DataView
from tui.widgets.data_xray import XRayView
from tui.widgets.key_bar import KeyBar
from tui.widgets.new_run_data import AnyDataStep, DataStep
from tui.widgets.new_run_model import ModelStep
from tui.widgets.new_run_source import SourceStep


class DataScreen(KeyedScreen):
    """Begins with the choice of files, or with the `choice` given. `sources` stands between it and the engine.

    Dismissed with a DataChoice where it was opened for one (`gives_back`); else it goes on to New run by itself.
    """

    TITLE_WORD = "Data"
    AUTO_FOCUS = ""
    KEYS = KEYS
    CSS = """
    DataScreen #title { height: 1; }
    DataScreen #tabs { height: 1; margin-bottom: 1; }
    DataScreen ContentSwitcher { height: 1fr; }
    DataScreen #entry { display: none; margin: 0 1; background: transparent; }
    DataScreen #entry:focus { background-tint: transparent; }
    DataScreen #foot { height: auto; dock: bottom; margin-bottom: 1; }
    DataScreen.-high DataLedger { height: 8; }
    """

    def __init__(self, sources: DataSources | None = None, choice: DataChoice | None = None, gives_back: bool = False):
        super().__init__()
        self.sources = sources or DataSources()
        self.board = DataBoard()
        self.view = "choose"
        self._gives_back = gives_back
        self._came_from = ""
        """The view from which a file or a model is chosen; "" where the choice of files came first."""
        self._begun_with_choice = choice is not None
        self.flow = DataFlow(self, self.sources, self.board)
        if choice is not None:
            self.board.take(choice)
            self.view = "sample"

    def compose(self) -> ComposeResult:
        sources, board = self.sources, self.board
        yield DataTitle(board, self.flow, id="title")
        yield DataTabs(board, id="tabs")
        with ContentSwitcher(initial=self.view):
            yield AnyDataStep(sources.data_places, lambda path: sources.preview(Source(path)), id="choose")
            yield ModelStep(sources.model_places, sources.inspect_model, id="model")
            yield SampleView(board, id="sample")
            yield XRayView(board, id="xray")
            yield LengthsView(board, id="lengths")
            yield ColumnsView(board, id="columns")
            yield ReportView(board, id="report")
            yield MixView(board, sources.templates(), id="mix")
        with Vertical(id="foot"):
            yield Input(id="entry", compact=True)
            yield DataLedger(board)
        yield KeyBar()

    def on_mount(self) -> None:
        self.set_class(self.look.ascii, "-ascii")
        self.query_one(Input).cursor_blink = False
        self._open(self.view)
        if self.board.sources:
            self.flow.read()

    def on_unmount(self) -> None:
        self.flow.close()

    def on_resize(self) -> None:
        self.set_class(self.size.height >= 36, "-high")

    # Keys

    @property
    def all_keys(self) -> tuple[Key, ...]:
        names = CHOOSING.get(self.view) or (*EVERYWHERE, *self.shown.keys)
        keys = [key for key in self.KEYS if key.name in names]
        if self.view != "mix":  # where there is room for it
            keys = [replace(key, footer=key.footer and key.name != "add") for key in keys]
        return (*keys, *APP_KEYS)

    def why_not(self, name: str) -> str | None:
        if all(key.name != name for key in self.KEYS):
            return None
        if all(key.name != name for key in self.all_keys):
            return "not in this view"
        if self.view in CHOOSING:
            return None
        if name == "take":
            return self._why_not_on()
        if name in ("fix", "warning"):
            return None if self._finding is not None else "there is nothing to fix"
        return self.shown.why_not(name)

    def _why_not_on(self) -> str | None:
        if any(state.preview is None for state in self.board.sources):
            return "it is being read"
        return None if self.board.problem() is None else "it cannot be learnt from so"

    @property
    def shown(self) -> DataView:
        """The view on the screen; the choices of file and model are none."""
        return self.query_one(f"#{self.view}", DataView)

    @property
    def _sample(self) -> SampleView:
        return self.query_one(SampleView)

    def do_take(self) -> None:
        choice = self.board.choice()
        if self._gives_back:
            self.dismiss(choice)
            return
        from tui.screens.new_run import NewRunScreen

        self.app.switch_screen(NewRunScreen(data=choice))

    def do_back(self) -> None:
        entry = self.query_one(Input)
        if entry.display:
            self._close_entry()
        elif self.view in CHOOSING and self._came_from in VIEWS:
            self._open(self._came_from)
        elif self.view in CHOOSING:
            self.dismiss()
        elif not self._sample.wanted.is_all and self.view == "sample":
            self.flow.show_rows(Wanted())
        elif self._begun_with_choice:
            self.dismiss()
        else:
            self._open("choose")
            self._came_from = ""

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
        self._open("sample")

    def do_xray(self) -> None:
        self._open("xray")

    def do_lengths(self) -> None:
        self._open("lengths")

    def do_columns(self) -> None:
        self._open("columns")

    def do_report(self) -> None:
        self._open("report")

    def do_mix(self) -> None:
        self._open("mix")

    def do_next_view(self) -> None:
        names: list[str] = list(VIEWS)
        self._open(names[(names.index(self.view) + 1) % len(names)])

    def do_model(self) -> None:
        self._open("model")

    def do_add(self) -> None:
        held_out = self.board.held_out
        train = [state.section.path for state in self.board.sources]
        self.query_one(DataStep).take(train, held_out.path if held_out else None)
        self._open("choose")

    def do_remove(self) -> None:
        self.query_one(MixView).take_out()

    def do_filter(self) -> None:
        if self.view == "report":
            finding = self.query_one(ReportView).finding
            assert finding is not None
            self.flow.show_rows(Wanted(lines=finding.lines))
            self._open("sample")
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
        assert self._finding is not None and self._finding.fix is not None
        fix = self._finding.fix
        if isinstance(fix, Show):
            if fix.filter:
                self.flow.show_rows(self._wanted(fix.filter, ""))
            elif fix.lines:
                self.flow.show_rows(Wanted(lines=fix.lines))
            self._open(fix.view)
            return
        if isinstance(fix, ReadAs):
            self.board.read_as(fix.index, fix.source)
            self.flow.read()
            return
        self.board.set(fix.setting, fix.value)
        if fix.setting in OF_TOKENS:
            self.board.forget()
        self.flow.settings_changed()

    @property
    def _finding(self) -> Finding | None:
        chosen = self.query_one(ReportView).finding if self.view == "report" else None
        return chosen if chosen is not None and chosen.fix is not None else self.query_one(DataLedger).warning

    def _wanted(self, filter: str, words: str) -> Wanted:
        length, has_personal = self.board.sequence_length, self.sources.has_personal
        return Wanted(filter, words, sequence_length=length, has_personal=has_personal)

    # What is typed

    def _open_entry(self, placeholder: str, value: str) -> None:
        entry = self.query_one(Input)
        entry.placeholder, entry.value, entry.display = placeholder, value, True
        # After this key was handled, or it would be typed.
        self.call_after_refresh(entry.focus)

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

    # What the views say

    @on(SourceStep.Done)
    def _chosen(self, event: SourceStep.Done) -> None:
        event.stop()
        if isinstance(event.step, DataStep):
            self.board.choose(event.step.train, event.step.held_out)
            self._open("sample")
            self.flow.read()
        else:
            self.board.model = event.path
            self.board.forget()
            self._open(self._came_from)
            self.flow.count()

    @on(DataView.Reread)
    def _reread(self, event: DataView.Reread) -> None:
        event.stop()
        self.flow.read_soon()

    @on(DataView.Changed)
    def _changed(self, event: DataView.Changed) -> None:
        event.stop()
        if self.view in ("sample", "xray"):
            self.flow.xray()
        else:
            self.flow.settings_changed()
        self.repaint()

    def _open(self, view: str) -> None:
        if view in CHOOSING:
            self._came_from = self.view
        self.view = view
        self.query_one(ContentSwitcher).current = view
        self.query_one("#foot").display = view not in CHOOSING
        if view in CHOOSING:
            self.query_one(f"#{view}", SourceStep).focus_picker()
        else:
            self.set_focus(None)
            if view == "xray":
                self.flow.xray()
            elif view == "report" and not self.board.findings:
                self.flow.report(whole=False)
        self.repaint()

    def repaint(self) -> None:
        """Show what the board holds now; what comes out the same is not drawn again."""
        if self.view not in CHOOSING:
            self.shown.repaint()
        self.query_one(DataTitle).show(self.view)
        self.query_one(DataTabs).show(self.view)
        self.query_one(DataLedger).repaint()
        self.query_one(KeyBar).repaint()
