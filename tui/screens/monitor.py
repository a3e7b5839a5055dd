"""Monitor: one run, live or ended, as its journal tells it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.screen import Screen

from tui import monitor_text, run_actions
from tui.keys import Key, RunScreen
from tui.monitor_charts import METRICS, chart_data
from tui.monitor_seal import seal_line
from tui.theme import Look
from tui.widgets.key_bar import KeyBar
from tui.widgets.line_chart import LineChart
from tui.widgets.lines import Lines
from tui.widgets.memory_panel import MemoryPanel
from tui.widgets.panel import Blocks, Panel
from tui.widgets.source_table import SourceTable, source_lines

if TYPE_CHECKING:
    from engine.run.directory import RunDirectory
    from tui.snapshots import RunSnapshot

VIEWS = ("log", "samples", "notes", "result")
SOURCES_VIEW = "sources"
"""A further view of runs that learn from several data sources."""
STACK_VIEW = "stack"
"""A further view of runs that stalled: where."""
LONG_FOOTER = 84
"""Columns from which all keys of the footer fit."""
MOST_SOURCES = 6
"""Lines of the table beside the chart; the view has them all."""


class MonitorScreen(RunScreen):
    """Shows `run`. The follower's snapshots come in with `show_run`."""

    TITLE_WORD = "Monitor"
    AUTO_FOCUS = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012
    # From 34 rows on a wide terminal has room for the small charts; a narrow one, with all in one column, from 44 on.
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (20, "-low"), (34, "-tall"), (44, "-high")]  # noqa: RUF012
    KEYS = (
        Key("escape,h", "back", "home", "Back to Home."),
        Key("s", "stop", "stop", "End the run after its present step, with everything saved."),
        Key("r", "resume", "resume", "Continue a stopped or failed run from its last checkpoint."),
        Key("c", "chat", "chat", "Ask the base and the tuned model the same questions."),
        Key("x", "restart", "restart", "End a hanging trainer and go on from the last checkpoint.", footer=False),
        Key("e", "export", "export", "Write the adapter, or the merged model, to a folder.", footer=False),
        Key("v", "view", "view", "Show the next of log, samples, notes, result, sources and stack."),
        Key("z", "zoom", "zoom", "Give the log, samples, notes or result the whole screen, and back."),
        Key("p", "seal", "seal", "What keeps the trainer from the network, how that was tried, what tried to get out."),
        Key("m", "metric", "chart", "Chart the next number: loss, learning rate, gradient norm, speed."),
        Key("w", "save", "save now", "Write a checkpoint after the present step.", footer=False),
        Key("a", "answer", "answer now", "Answer held-out rows with the weights as they are now.", footer=False),
        Key("y", "copy", "copy path", "Copy the path of the output, or of the run folder.", footer=False),
        Key("j,down", "down", "down", "Scroll the view below the chart.", footer=False, palette=False),
        Key("k,up", "up", "up", "Scroll the view back.", footer=False, palette=False),
        Key("g,home", "first", "first", "To the start of the view.", footer=False, palette=False),
        Key("G,end", "last", "last", "To the end of the view.", footer=False, palette=False),
    )

    def __init__(self, run: RunDirectory):
        super().__init__()
        self.run = run
        self._snapshot: RunSnapshot | None = None
        self._metric = METRICS[0]
        self._phase_began = ("", 0.0, 0)
        self._stall_dialog: Screen | None = None

    def compose(self) -> ComposeResult:
        yield Lines(self._paint_title, id="title")
        yield Lines(self._paint_progress, id="progress")
        yield Lines(self._paint_readout, id="readout")
        yield Lines(self._paint_seal, id="seal")
        with Container(id="body"):
            with Vertical(id="charts"):
                yield LineChart(id="chart")
                with Horizontal(id="small-charts"):
                    for index in range(1, len(METRICS)):
                        yield LineChart(id=f"chart-{index}")
            with Vertical(id="side"):
                yield MemoryPanel(id="memory")
                yield Lines(self._paint_devices, id="devices")
                yield Lines(self._paint_facts, id="facts")
                yield SourceTable(id="sources")
                yield Panel(("samples", "notes"), self._blocks, tails=(), id="side-panel")
            yield Panel(VIEWS, self._blocks, id="panel")
        yield KeyBar()

    def on_screen_resume(self) -> None:
        self.finetui.screen_shown()

    def show_run(self, snapshot: RunSnapshot) -> None:
        """Draw this snapshot; only what differs from the one before reaches the terminal."""
        before, self._snapshot = self._snapshot, snapshot
        state = snapshot.state
        phase = f"{state.phase} {state.phase_detail}"
        if phase != self._phase_began[0]:
            self._phase_began = (phase, state.last_event_at or 0.0, state.phase_done)
        ended_now = snapshot.liveness != "live" and (before is None or before.liveness == "live")
        panel = self.query_one("#panel", Panel)
        was_told, told = before and _to_be_read(before), _to_be_read(snapshot)
        began = before is not None and before.liveness != "live" and snapshot.liveness == "live"
        if ended_now or (told and told != was_told):
            panel.view = "result"
        elif began or (was_told and not told and panel.view == "result"):
            panel.view = "log"
        self._show_all()
        if snapshot.stalled != (before is not None and before.stalled):
            self._stall_changed(snapshot)

    def _stall_changed(self, snapshot: RunSnapshot) -> None:
        """Ask what to do about a stall, where nothing else is being asked; take the question back once it is over."""
        panel = self.query_one("#panel", Panel)
        if not snapshot.stalled:
            if self.app.screen is self._stall_dialog:
                self.app.pop_screen()
            if panel.view == STACK_VIEW:
                panel.choose("result")
            return
        if STACK_VIEW not in panel.views:
            panel.views.append(STACK_VIEW)
        panel.choose("result")
        if not self.is_current:
            return

        def answered(answer: str | None) -> None:
            if answer == "stack":
                panel.choose(STACK_VIEW)
                self.set_class(True, "-zoomed")
            elif answer == "restart":
                run_actions.restart_now(self, self.run, self.run.spec_name)
            elif answer == "stop":
                self.do_stop()

        self._stall_dialog = run_actions.stall_dialog(snapshot)
        self.app.push_screen(self._stall_dialog, answered)

    @property
    def live_names(self) -> tuple[str, ...]:
        """The run's name while it goes on when the app is left."""
        live = self._snapshot is not None and self._snapshot.liveness == "live"
        return (self.run.spec_name,) if live else ()

    def _show_all(self) -> None:
        snapshot = self._snapshot
        if snapshot is None:
            return
        look = self.look
        self.query_one("#chart", LineChart).show(chart_data(snapshot.state, self._metric, look))
        others = [metric for metric in METRICS if metric is not self._metric]
        for index, metric in enumerate(others, start=1):
            self.query_one(f"#chart-{index}", LineChart).show(chart_data(snapshot.state, metric, look))
        self.query_one(MemoryPanel).show(snapshot.state)
        self._show_sources(snapshot)
        for widget in self.query(Lines):
            widget.repaint()
        for panel in self.query(Panel):
            panel.repaint()
        self.query_one(KeyBar).repaint()

    def _show_sources(self, snapshot: RunSnapshot) -> None:
        """The table of sources and its view, where the run has several."""
        count = len(snapshot.state.sources)
        table = self.query_one(SourceTable)
        if self.set_class(bool(count), "-mixed").has_class("-mixed"):
            table.styles.height = min(count, MOST_SOURCES) + 2  # with its heading and a line below
            views = self.query_one("#panel", Panel).views
            if SOURCES_VIEW not in views:
                views.append(SOURCES_VIEW)
        table.show(snapshot.state)

    # What the rows show

    def _paint_title(self, width: int, height: int) -> list[Text]:
        if self._snapshot is None:
            name = Text().append(self.run.spec_name, style=self.look.strong)
            return [name.append(f"  reading the run{self.look.ellipsis}", style=self.look.dim)]
        return [monitor_text.title_line(self._snapshot, width, self.look)]

    def _paint_progress(self, width: int, height: int) -> list[Text]:
        if self._snapshot is None:
            return []
        return [monitor_text.progress_line(self._snapshot, self._phase_pace(), width, self.look)]

    def _phase_pace(self) -> float | None:
        """Things a second in the present phase, since this screen saw it begin."""
        assert self._snapshot is not None
        state = self._snapshot.state
        _, began_at, began_done = self._phase_began
        seconds = (state.last_event_at or 0.0) - began_at
        return (state.phase_done - began_done) / seconds if seconds > 0 and state.phase_done > began_done else None

    def _paint_readout(self, width: int, height: int) -> list[Text]:
        return [monitor_text.readout_line(self._snapshot, width, self.look)] if self._snapshot else []

    def _paint_seal(self, width: int, height: int) -> list[Text]:
        return [seal_line(self._snapshot.state, width, self.look)] if self._snapshot else []

    def _paint_devices(self, width: int, height: int) -> list[Text]:
        if self._snapshot is None:
            return []
        return monitor_text.device_lines(self._snapshot.state.device, width, height, self.look)

    def _paint_facts(self, width: int, height: int) -> list[Text]:
        return monitor_text.fact_lines(self._snapshot, width, self.look) if self._snapshot else []

    def _blocks(self, view: str, width: int, height: int, look: Look) -> Blocks:
        if self._snapshot is None:
            return []
        if view == "log":
            return monitor_text.log_blocks(self._snapshot, width, look)
        if view == "samples":
            return monitor_text.sample_blocks(self._snapshot, width, height, look)
        if view == SOURCES_VIEW:
            return [[line] for line in source_lines(self._snapshot.state, width, look)]
        if view == STACK_VIEW:
            return monitor_text.stack_blocks(self._snapshot, width, look)
        if view == "notes":
            return monitor_text.note_blocks(self._snapshot, width, look)
        return monitor_text.result_blocks(self._snapshot, width, height, look)

    # Keys

    @property
    def all_keys(self) -> tuple[Key, ...]:
        """Where the footer is short the chart's key is in the help alone."""
        long = self.app.size.width >= LONG_FOOTER
        return tuple(replace(key, footer=key.footer and (long or key.name != "metric")) for key in super().all_keys)

    def why_not(self, name: str) -> str | None:
        if name not in ("stop", "resume", "restart", "chat", "export", "save", "answer", "seal"):
            return None
        if self._snapshot is None:
            return "the run is being read"
        if name == "seal":
            return None
        if name == "chat" and not self._snapshot.writes:
            return "its model does not write"
        return run_actions.why_not(name, self._snapshot.word, bool(self._snapshot.state.outputs))

    def do_back(self) -> None:
        if self.has_class("-zoomed"):
            self.do_zoom()
        else:
            self.app.pop_screen()

    def do_stop(self) -> None:
        queued = self._snapshot is not None and self._snapshot.word == "queued"
        run_actions.stop(self, self.run, self.run.spec_name, queued)

    def do_resume(self) -> None:
        run_actions.resume(self, self.run, self.run.spec_name)

    def do_restart(self) -> None:
        run_actions.restart(self, self.run, self.run.spec_name)

    def do_chat(self) -> None:
        run_actions.chat(self, self.run)

    def do_export(self) -> None:
        run_actions.export(self, self.run, self.run.spec_name)

    def do_save(self) -> None:
        run_actions.save(self, self.run)

    def do_answer(self) -> None:
        run_actions.answer(self, self.run)

    def do_copy(self) -> None:
        outputs = self._snapshot.state.outputs if self._snapshot else {}
        path = self.run.path / next(iter(outputs.values())) if outputs else self.run.path
        run_actions.copy(self, str(path))

    def do_seal(self) -> None:
        from tui.screens.seal import SealScreen

        self.app.push_screen(SealScreen(self.run, self._snapshot))

    def do_metric(self) -> None:
        self._metric = METRICS[(METRICS.index(self._metric) + 1) % len(METRICS)]
        self._show_all()

    def do_view(self) -> None:
        self.query_one("#panel", Panel).choose_next()

    def do_zoom(self) -> None:
        self.toggle_class("-zoomed")

    def do_down(self) -> None:
        self.query_one("#panel", Panel).scroll_blocks(1)

    def do_up(self) -> None:
        self.query_one("#panel", Panel).scroll_blocks(-1)

    def do_first(self) -> None:
        self.query_one("#panel", Panel).scroll_blocks(-(10**6))

    def do_last(self) -> None:
        self.query_one("#panel", Panel).scroll_blocks(10**6)


def _to_be_read(snapshot: RunSnapshot) -> str:
    """What holds a live run up, or set it back: the result view says it first. Nothing where all is as planned."""
    if snapshot.liveness != "live":
        return ""
    state = snapshot.state
    if state.phase in ("queued", "paused"):
        return state.phase
    return str(state.fresh_restart.get("number", ""))
