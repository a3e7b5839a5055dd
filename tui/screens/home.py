"""Home: the machine with who uses it, and all runs, newest first."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Input

from tui import run_actions
from tui.ending_lines import ending_lines
from tui.format import bytes_text, counted, moment_text
from tui.keys import Key, KeyedScreen
from tui.run_words import held_word, key_remedy, why_words
from tui.seal_words import WORDS, ability_words, glyph
from tui.seal_words import style as style_of
from tui.widgets.key_bar import KeyBar
from tui.widgets.lines import Lines
from tui.widgets.machine_panel import MachinePanel
from tui.widgets.new_run.text import drawable
from tui.widgets.painted import cut, spread
from tui.widgets.run_table import RunTable

if TYPE_CHECKING:
    from engine.run.directory import RunDirectory
    from engine.run.summary import RunSummary
    from tui.snapshots import Machine


INTERRUPTED_SECONDS = 14 * 24 * 3600
"""Runs that were interrupted are offered for so long: as long as two of the longest take. They stay in the table."""


class HomeScreen(KeyedScreen):
    """The first screen. It is given what the follower read with `show_runs` and `show_machine`."""

    TITLE_WORD = "Home"
    AUTO_FOCUS = ""
    VERTICAL_BREAKPOINTS = [(0, "-low"), (34, "-tall")]  # noqa: RUF012
    KEYS = (
        Key("n", "new", "new", "Choose a model and data and start a run."),
        Key("d", "data", "data", "See what a model would learn from a file, and what is wrong with it."),
        Key("p", "plan", "plan", "See what a model would cost here, and which card would train it."),
        Key("enter,l", "open", "open", "Watch the run under the cursor, live or ended."),
        Key("c", "chat", "chat", "Ask the base and the tuned model the same questions."),
        Key("s", "stop", "stop", "End the run after its present step, with everything saved."),
        Key("r", "resume", "resume", "Continue a stopped or failed run from its last checkpoint."),
        Key("R", "resume_all", "resume all", "Continue all runs that a restart or a kill interrupted.", footer=False),
        Key("K", "sooner", "sooner", "Let the waiting run start before the one in front of it.", footer=False),
        Key("J", "later", "later", "Let the waiting run start after the one behind it.", footer=False),
        Key("e", "export", "export", "Write the adapter, or the merged model, to a folder.", spare=True),
        Key("P", "purge", "purge", "Remove an ended run with all that is kept of it, once you agreed.", spare=True),
        Key("slash", "filter", "find", "Show only runs that contain a text; Esc shows all again.", spare=True),
        Key("j,down", "down", "down", "Next run.", footer=False, palette=False),
        Key("k,up", "up", "up", "Previous run.", footer=False, palette=False),
        Key("g,home", "first", "first", "Newest run.", footer=False, palette=False),
        Key("G,end", "last", "last", "Oldest run.", footer=False, palette=False),
        Key("y", "copy", "copy path", "Copy the run folder's path.", footer=False),
        Key("escape", "back", "back", "Show all runs again.", footer=False, palette=False),
    )

    def __init__(self) -> None:
        super().__init__()
        self._all: tuple[RunSummary, ...] | None = None
        self._machine: Machine | None = None
        self._filter = ""

    def compose(self) -> ComposeResult:
        yield Lines(self._paint_header, id="header")
        yield MachinePanel(id="machine")
        yield RunTable(id="runs")
        placeholder = "part of a name, model, method or state"
        yield Input(placeholder=placeholder, id="filter", compact=True, select_on_focus=False)
        yield Lines(self._paint_interrupted, id="interrupted")
        yield Lines(self._paint_detail, id="detail")
        yield KeyBar()

    def on_mount(self) -> None:
        filter_input = self.query_one(Input)
        filter_input.cursor_blink = False
        filter_input.display = False
        self._show_table()

    def on_screen_resume(self) -> None:
        self.finetui.screen_shown()

    # What the follower read

    @property
    def live_names(self) -> tuple[str, ...]:
        """The names of the runs that go on when the app is left."""
        return tuple(run.spec_name for run in self._all or () if run.state in run_actions.LIVE)

    def show_runs(self, runs: tuple[RunSummary, ...]) -> None:
        self._all = runs
        self.set_class(bool(self.interrupted), "-interrupted")
        self._show_table()

    @property
    def interrupted(self) -> list[RunSummary]:
        """The runs that were interrupted lately."""
        lately = time.time() - INTERRUPTED_SECONDS
        runs = [run for run in self._all or () if run.interrupted]
        return [run for run in runs if run.last_event_at is not None and run.last_event_at >= lately]

    def show_machine(self, machine: Machine) -> None:
        self._machine = machine
        self.query_one(MachinePanel).show(machine)
        self.query_one("#header", Lines).repaint()

    def _show_table(self) -> None:
        words = self._filter.lower().split()
        runs = tuple(run for run in self._all or () if all(word in _searched(run) for word in words))
        if self._all is None:
            empty = "reading the runs" + self.look.ellipsis
        elif self._all:
            empty = f"No run contains “{self._filter}”. Esc shows all."
        else:
            empty = "No runs yet. n makes the first; `finetui demo` in a shell shows the whole story in minutes."
        if self.look.ascii:
            empty = empty.replace("“", '"').replace("”", '"')
        self.query_one(RunTable).show(runs, empty)
        self._repaint_lines()

    def _repaint_lines(self) -> None:
        self.query_one("#header", Lines).repaint()
        self.query_one("#interrupted", Lines).repaint()
        self.query_one("#detail", Lines).repaint()
        self.query_one(KeyBar).repaint()

    def _paint_header(self, width: int, height: int) -> list[Text]:
        look = self.look
        left = Text().append("finetui", style=look.accent)
        if self._machine is not None:
            hardware = self._machine.hardware
            names = dict.fromkeys(f"{gpu.name} {bytes_text(gpu.total_bytes)}" for gpu in hardware.gpus)
            device = ", ".join(names) or f"{hardware.cpu.name}, {counted(hardware.cpu.physical_cores, 'core')}"
            left.append(f"   {hardware.host}", style=look.strong).append(f"{look.separator}{device}", style=look.dim)
            if (ability := self._machine.seal) is not None:
                whole = all(layer.held for layer in ability.layers)
                left.append(look.separator, style=look.dim)
                left.append(ability_words(ability), style=look.dim if whole else look.warn)
        right = Text()
        if self._all is not None:
            right.append(counted(len(self._all), "run"), style=look.dim)
            right.append(look.separator, style=look.dim)
            live = len(self.live_names)
            right.append(f"{live} live", style=look.accent if live else look.dim)
        return [spread(left, right, width, look)]

    def _paint_interrupted(self, width: int, height: int) -> list[Text]:
        """The runs that nobody meant to end, and the key that lets them go on."""
        look, runs = self.look, self.interrupted
        if not runs:
            return []
        rebooted = all(run.cause == "machine_restarted" for run in runs)
        was = "was" if len(runs) == 1 else "were"
        told = f"{counted(len(runs), 'run')} {was} interrupted{' when the machine restarted' if rebooted else ''}:"
        line = Text(told, style=look.warn).append("  R", style=look.accent)
        line.append(" resumes it" if len(runs) == 1 else " resumes them all", style=look.dim)
        return [cut(line, width, look)]

    def _paint_detail(self, width: int, height: int) -> list[Text]:
        look, run = self.look, self.query_one(RunTable).run
        if run is None:
            return []
        style = look.bad if run.state == "failed" else look.warn if held_word(run) else ""
        lines = []
        if why := why_words(run.cause, run.why or run.restarted):
            remedy = "enter shows it and asks what to do." if run.stalled else key_remedy(run.remedy, run.name)
            lines = ending_lines(why, remedy, width, height, look, style, advised=run.state == "failed")
        if run.seal_broken:
            alarm = f"{glyph(run.seal, look)} {WORDS[run.seal]}: {run.seal_broken}"
            lines = [cut(Text(drawable(alarm, look), style=look.bad), width, look), *lines]
        what = look.separator.join([run.model, run.data, f"started {moment_text(run.started_at)}"])
        described = Text(what, style=look.dim)
        if run.seal and not run.seal_broken:
            sign = f"{glyph(run.seal, look)} {WORDS[run.seal]}"
            seal = Text(look.separator, style=look.dim).append(sign, style=style_of(run.seal, look))
            described = cut(described, width - seal.cell_len, look).append_text(seal)
        lines += [cut(each, width, look) for each in (described, Text(str(run.path), style=look.dim))]
        return lines[:height]

    # Keys

    @property
    def all_keys(self) -> tuple[Key, ...]:
        """Of a run that waits, the footer shows the keys that move it where it else has those it cannot take."""
        run = self.query_one(RunTable).run
        if run is None or run.state != "queued":
            return super().all_keys
        shown = {"sooner": True, "later": True, "chat": False, "resume": False}
        return tuple(replace(key, footer=shown.get(key.name, key.footer)) for key in super().all_keys)

    def why_not(self, name: str) -> str | None:
        if name not in {key.name for key in self.KEYS} or name in ("new", "data", "plan", "filter", "back"):
            return None
        if name == "resume_all":
            return None if self.interrupted else "no run was interrupted"
        run = self.query_one(RunTable).run
        if name == "sooner" and run is not None and run.place == 1:
            return "it is the first in line"
        if name == "later" and run is not None and run.place is not None and run.place >= self._longest_place:
            return "it is the last in line"
        has_model = run is not None and run.state in ("finished", "stopped")
        return run_actions.why_not(name, run.state if run else None, has_model)

    @property
    def _longest_place(self) -> int:
        """Of the runs that wait, whatever they wait for."""
        return max((run.place or 0 for run in self._all or ()), default=0)

    @property
    def _directory(self) -> RunDirectory:
        from engine.run.directory import RunDirectory

        run = self.query_one(RunTable).run
        assert run is not None
        return RunDirectory(run.path)

    @property
    def _run_name(self) -> str:
        run = self.query_one(RunTable).run
        assert run is not None
        return run.spec_name

    def do_new(self) -> None:
        from tui.screens.new_run import NewRunScreen

        self.app.push_screen(NewRunScreen())

    def do_data(self) -> None:
        from tui.screens.data import DataScreen

        self.app.push_screen(DataScreen())

    def do_plan(self) -> None:
        from tui.screens.plan import PlanScreen

        self.app.push_screen(PlanScreen())

    def do_open(self) -> None:
        self.finetui.open_run(self._directory)

    def do_chat(self) -> None:
        run_actions.chat(self, self._directory)

    def do_stop(self) -> None:
        run = self.query_one(RunTable).run
        queued = run is not None and run.state == "queued"
        run_actions.stop(self, self._directory, self._run_name, queued)

    def do_resume(self) -> None:
        run_actions.resume(self, self._directory, self._run_name)

    def do_resume_all(self) -> None:
        from engine.run.directory import RunDirectory

        run_actions.resume_all(self, [RunDirectory(run.path) for run in self.interrupted])

    def do_sooner(self) -> None:
        run_actions.move_in_line(self, self._directory, self._run_name, "sooner")

    def do_later(self) -> None:
        run_actions.move_in_line(self, self._directory, self._run_name, "later")

    def do_export(self) -> None:
        run_actions.export(self, self._directory, self._run_name)

    def do_purge(self) -> None:
        run_actions.purge(self, self._directory, self._run_name)

    def do_copy(self) -> None:
        run_actions.copy(self, str(self._directory.path))

    def do_down(self) -> None:
        self.query_one(RunTable).move(1)

    def do_up(self) -> None:
        self.query_one(RunTable).move(-1)

    def do_first(self) -> None:
        self.query_one(RunTable).move(-len(self._all or ()))

    def do_last(self) -> None:
        self.query_one(RunTable).move(len(self._all or ()))

    def do_filter(self) -> None:
        filter_input = self.query_one(Input)
        filter_input.display = True
        filter_input.select_all()
        self.set_focus(filter_input)

    def do_back(self) -> None:
        filter_input = self.query_one(Input)
        filter_input.value = ""
        filter_input.display = False
        self.set_focus(None)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._filter = event.value
        self._show_table()

    def on_input_submitted(self) -> None:
        self.query_one(Input).display = bool(self._filter)
        self.set_focus(None)

    def on_run_table_moved(self) -> None:
        self._repaint_lines()

    async def on_run_table_opened(self) -> None:
        await self.action_key("open")


def _searched(run: RunSummary) -> str:
    words = [run.spec_name, run.name, run.model, run.data, run.method, run.doing or run.state]
    return " ".join([*words, why_words(run.cause, run.why), held_word(run)]).lower()
