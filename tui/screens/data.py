"""Data: choose files, see what the model will learn from them and what is wrong with them, and go on."""

from __future__ import annotations

from dataclasses import replace

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import ContentSwitcher, Input

from engine.data.source import Source
from tui.keys import APP_KEYS, Key
from tui.screens.data_actions import DataActions
from tui.widgets.data.board import DataBoard, DataChoice
from tui.widgets.data.columns import ColumnsView
from tui.widgets.data.flow import DataFlow
from tui.widgets.data.heading import DataTabs, DataTitle
from tui.widgets.data.keys import CHOOSING, EVERYWHERE, KEYS
from tui.widgets.data.ledger import DataLedger
from tui.widgets.data.lengths import LengthsView
from tui.widgets.data.mix import MixView
from tui.widgets.data.report import ReportView
from tui.widgets.data.sample import SampleView
from tui.widgets.data.sources import DataSources
from tui.widgets.data.view import DataView
from tui.widgets.data.xray import XRayView
from tui.widgets.key_bar import KeyBar
from tui.widgets.new_run.data import AnyDataStep, DataStep
from tui.widgets.new_run.model import ModelStep
from tui.widgets.new_run.source import SourceStep


class DataScreen(DataActions):
    """Begins with the choice of files, or with the `choice` given. `sources` stands between it and the engine.

    Dismissed with a DataChoice where it was opened for one (`gives_back`); else it goes on to New run by itself.
    """

    TITLE_WORD = "Data"
    AUTO_FOCUS = ""
    KEYS = KEYS
    CSS = """
    DataScreen #title { height: 1; }
    DataScreen #tabs { height: 1; }
    DataScreen ContentSwitcher { height: 1fr; margin-top: 1; }
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
        self.gives_back = gives_back
        self.came_from = ""
        self.begun_with_choice = choice is not None
        self.flow = DataFlow(self, self.sources, self.board)
        if choice is not None:
            self.board.take(choice)
            self.view = "sample"

    def compose(self) -> ComposeResult:
        sources, board = self.sources, self.board
        yield DataTitle(board, id="title")
        yield DataTabs(board, id="tabs")
        with ContentSwitcher(initial=self.view):
            yield AnyDataStep(sources.data_places, lambda path: sources.preview(Source(path)), id="choose")
            yield ModelStep(sources.model_places, sources.inspect_model, id="model")
            yield SampleView(board, sources.find_personal, id="sample")
            yield XRayView(board, id="xray")
            yield LengthsView(board, id="lengths")
            yield ColumnsView(board, id="columns")
            yield ReportView(board, id="report")
            yield MixView(board, sources.templates(), id="mix")
        with Vertical(id="foot"):
            yield Input(id="entry", compact=True, select_on_focus=False)
            yield DataLedger(board)
        yield KeyBar()

    def on_mount(self) -> None:
        self.set_class(self.look.ascii, "-ascii")
        self.query_one(Input).cursor_blink = False
        self.open_view(self.view)
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
        if self.view not in CHOOSING:
            keys = [self._in_view(key) for key in keys]
        return (*keys, *APP_KEYS)

    def _in_view(self, key: Key) -> Key:
        if key.name == "more":
            return replace(key, label=self.shown.change_word)
        return replace(key, footer=key.footer and (key.name != "add" or self.view == "mix"))

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
            return None if self.finding is not None else "no warning"
        return self.shown.why_not(name)

    def _why_not_on(self) -> str | None:
        if any(state.preview is None for state in self.board.sources):
            return "it is being read"
        return None if self.board.problem() is None else "it cannot be learnt from so"

    # What the views say

    @on(SourceStep.Done)
    def _chosen(self, event: SourceStep.Done) -> None:
        event.stop()
        if event.step.id != self.view:
            return  # whoever went back while it was being read stays there
        if isinstance(event.step, DataStep):
            choice = event.step.choice_of(event.path)
            self.board.choose(choice.paths, choice.held_out_path)
            self.open_view("sample")
            self.flow.read()
        else:
            self.board.model = event.path
            self.board.forget()
            self.open_view(self.came_from)
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

    def open_view(self, view: str) -> None:
        if view in CHOOSING:
            self.came_from = self.view
        self.view = view
        self.query_one(ContentSwitcher).current = view
        for id in ("#tabs", "#foot"):
            self.query_one(id).display = view not in CHOOSING
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
