"""The Textual app: holds the follower's latest snapshots and hands them to the screens. Thin on purpose.

Everything that takes time is imported late or happens in a thread: the first text must be there within half a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rich.text import Text
from textual import events
from textual.app import SystemCommand
from textual.binding import BindingType
from textual.screen import Screen
from textual.widgets import Input

from profiles.problem import printable
from tui.attention import Attention, NewsDesk
from tui.follow import Follower, MachineRead, OrphansRead, ReadFailed, RunRead, RunsRead, Source
from tui.keys import KeyedScreen, RunScreen, app_bindings
from tui.leaving import AppDriver, OutsideEnd
from tui.screen_update import CompositorUpdate, ScreenCells
from tui.screens.home import HomeScreen
from tui.terminal import Terminal
from tui.theme import NO_COLOR_THEME, THEME, look_for
from tui.typed_ahead import TypedAheadApp

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from engine.run.directory import RunDirectory
    from engine.run.processes.identity import ProcessIdentity
    from engine.run.summary import RunSummary

SMALLEST = (40, 12)
"""Columns and rows below which the app shows one sentence."""
AGAIN_SECONDS = 2.0
"""A second Ctrl-C within this time quits."""


class FinetuiApp(TypedAheadApp):
    """finetui in a terminal. Starts on Home, where a live run opens its monitor at once, or on one run's monitor."""

    TITLE = "finetui"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*app_bindings(), ("ctrl+c", "interrupt", "")]

    def __init__(
        self,
        start: Literal["home"] | RunDirectory = "home",
        terminal: Terminal | None = None,
        source: Source | None = None,
    ):
        self.terminal = terminal or Terminal.detect()
        self.look = look_for(self.terminal)
        super().__init__(driver_class=AppDriver, ansi_color=True if self.terminal.no_color else None)
        self.animation_level = "none"
        self.register_theme(THEME)
        self.theme = NO_COLOR_THEME if self.terminal.no_color else THEME.name
        self.cells = ScreenCells(self.console, no_color=self.terminal.no_color, ascii=self.terminal.ascii)
        self._start = start
        self._source = source
        self._may_open_live_run = start == "home"
        self._interrupted_at = 0.0
        self._is_small = False
        self._attention = Attention(self.terminal, self._write)
        self._desk = NewsDesk()
        self._asked_about: set[ProcessIdentity] = set()
        self._outside_end = OutsideEnd(self.exit, lambda: self._driver)
        self.follower: Follower | None = None

    def get_default_screen(self) -> Screen:
        return HomeScreen()

    def on_mount(self) -> None:
        self._outside_end.begin()
        if not isinstance(self._start, str):
            self.open_run(self._start)
        self.app_resume_signal.subscribe(self, lambda _: self.do_redraw())
        # Reading begins after the first paint: importing what it needs would hold that up.
        self.call_after_refresh(self._begin_to_follow)

    def _begin_to_follow(self) -> None:
        source = self._source
        if source is None:
            from tui.source import EngineSource

            source = EngineSource()
        self.follower = Follower(source, self.post_message)
        self._point_follower()
        self.follower.start()

    def on_unmount(self) -> None:
        if self.follower is not None:
            self.follower.close()

    def run(self, *args: Any, **options: Any) -> None:
        """Run the app until it is left; does not return when it is ended from outside."""
        self._outside_end.listen()
        try:
            return super().run(*args, **options)
        finally:
            self._outside_end.finish()

    # What the follower read

    def on_runs_read(self, message: RunsRead) -> None:
        if not self.is_running:
            return  # it is being left, and the screens go piece by piece
        self._tell(message.runs)
        for screen in self.screen_stack:
            if isinstance(screen, HomeScreen):
                screen.show_runs(message.runs)
        if self._may_open_live_run:
            self._may_open_live_run = False
            live = next((run for run in message.runs if run.state in ("running", "preparing")), None)
            home = self.screen_stack[0]
            needs_a_look = isinstance(home, HomeScreen) and home.interrupted
            if live is not None and len(self.screen_stack) == 1 and not needs_a_look:
                from engine.run.directory import RunDirectory

                self.open_run(RunDirectory(live.path))

    def _tell(self, runs: Iterable[RunSummary]) -> None:
        """Call for what became of the runs, and say it where they are not in view."""
        for each in self._desk.read(runs):
            self._attention.call(each.title, each.text)
            if each.urgent:
                self.notify(each.text, title=each.title, severity="warning", markup=False)
            elif not self._in_view(each.path):
                self.notify(each.text, title=each.title, markup=False)

    def _in_view(self, path: Path) -> bool:
        """Whether the screen on top, dialogs aside, shows how this run does."""
        top = next((screen for screen in reversed(self.screen_stack) if isinstance(screen, KeyedScreen)), None)
        return isinstance(top, HomeScreen) or (isinstance(top, RunScreen) and top.run.path == path)

    def _write(self, text: str) -> None:
        """Between two frames, as every write from the event loop is."""
        if self._driver is not None and not self.is_headless:
            self._driver.write(text)

    def on_machine_read(self, message: MachineRead) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, HomeScreen) and self.is_running:
                screen.show_machine(message.machine)

    def on_orphans_read(self, message: OrphansRead) -> None:
        """Ask about each, once; the first is asked last and so stands on top."""
        from tui.run_actions import orphan_dialog

        for orphan in reversed(message.orphans):
            if orphan.identity not in self._asked_about and self.is_running:
                self._asked_about.add(orphan.identity)
                orphan_dialog(self.screen, orphan)

    def on_run_read(self, message: RunRead) -> None:
        for screen in self.screen_stack:
            # One that opens just now is told once it is there, see screen_shown.
            there = self.is_running and screen.is_mounted
            if there and isinstance(screen, RunScreen) and screen.run == message.snapshot.run:
                screen.show_run(message.snapshot)

    def on_read_failed(self, message: ReadFailed) -> None:
        if message.what:
            self.notify(message.what, title="Cannot be read", severity="error", markup=False)

    def screen_shown(self) -> None:
        """A screen came to the top: read what it shows."""
        self._point_follower()

    def _point_follower(self) -> None:
        if self.follower is None:
            return
        for screen in reversed(self.screen_stack):
            if isinstance(screen, HomeScreen):
                self.follower.watch_home()
                return
            if isinstance(screen, RunScreen):
                self.follower.watch_run(screen.run)
                return

    # Where a person goes

    def open_run(self, run: RunDirectory) -> None:
        """Show the monitor of `run`, with Home below it whatever was open before."""
        from tui.screens.monitor import MonitorScreen

        self._may_open_live_run = False
        while len(self.screen_stack) > 1:
            self.pop_screen()
        self.push_screen(MonitorScreen(run))

    def on_resize(self, event: events.Resize) -> None:
        from tui.screens.too_small import TooSmallScreen

        self.cells.forget()
        self._is_small = event.size.width < SMALLEST[0] or event.size.height < SMALLEST[1]
        if self._is_small and not isinstance(self.screen, TooSmallScreen):
            self.push_screen(TooSmallScreen(lambda: self._is_small))
        elif not self._is_small and isinstance(self.screen, TooSmallScreen):
            self.pop_screen()
        self.screen.refresh()

    # What the keys do everywhere

    async def action_key(self, name: str) -> None:
        """The key called `name` of APP_KEYS, where the screen did not take it."""
        getattr(self, f"do_{name}")()

    def do_help(self) -> None:
        from tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen))

    def do_palette(self) -> None:
        self.action_command_palette()

    def do_redraw(self) -> None:
        self.cells.forget()
        self.screen.refresh(layout=True)

    def do_suspend(self) -> None:
        self.cells.forget()
        self.action_suspend_process()

    def do_quit(self) -> None:
        live = dict.fromkeys(name for screen in self.screen_stack for name in getattr(screen, "live_names", ()))
        goes = "goes" if len(live) == 1 else "go"
        self.exit(message=f"{', '.join(live)} {goes} on. Type finetui to come back." if live else None)

    def action_interrupt(self) -> None:
        if time.monotonic() - self._interrupted_at < AGAIN_SECONDS:
            self.do_quit()
            return
        self._interrupted_at = time.monotonic()
        self.notify("Ctrl-C again quits, as q does. Runs go on; s stops one.", timeout=AGAIN_SECONDS)

    async def action_quit(self) -> None:
        self.do_quit()

    def on_command_palette_opened(self) -> None:
        # A blinking cursor writes bytes for as long as it is there.
        self.screen.query_one(Input).cursor_blink = False

    def get_system_commands(self, screen: Screen) -> Iterable[SystemCommand]:
        if isinstance(screen, KeyedScreen):
            for key in screen.all_keys:
                if key.palette and screen.why_not(key.name) is None:

                    async def act(name: str = key.name) -> None:
                        await screen.action_key(name)

                    yield SystemCommand(f"{key.label} ({key.shown})", key.help, act)

    def copy_to_clipboard(self, text: str) -> None:
        """Copy through the terminal (OSC 52) and, inside tmux, which drops that by default, through tmux."""
        super().copy_to_clipboard(text)
        if self.terminal.tmux:
            from tui.run_actions import copy_with_tmux

            self.run_worker(lambda: copy_with_tmux(text), thread=True, exit_on_error=False)

    def _fatal_error(self) -> None:
        # Textual's own shows pages of traceback with the values of variables, a person's data among them.
        from tui.commands import faults, status

        error = self._exception
        assert error is not None
        self._return_code = status.FAULT
        told = f"finetui: a fault of its own, {type(error).__name__}: {printable(error, 200)}"
        self.panic(Text(f"{told}\n  where it came up is in {faults.log_fault(error)}"))

    def _display(self, screen: Screen, renderable: RenderableType | None) -> None:
        # The one private hook we need: without it a change costs 3 to 100 times the bytes (see screen_update).
        shown = self._running and not self._closed and not self.is_headless and not self._batch_count
        if shown and isinstance(renderable, CompositorUpdate):
            renderable = self.cells.changes(renderable)
        super()._display(screen, renderable)
