"""The seal of a run: what keeps its trainer from the network, how that was tried, and what the kernel says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from textual.app import ComposeResult

from tui import monitor_text
from tui.keys import Key, RunScreen
from tui.monitor_seal import Page, seal_page
from tui.widgets.key_bar import KeyBar
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from engine.run.directory import RunDirectory
    from tui.snapshots import RunSnapshot


class SealScreen(RunScreen):
    """One page to scroll; it follows the run as the monitor below it does."""

    TITLE_WORD = "Seal"
    AUTO_FOCUS = ""
    KEYS = (
        Key("escape,p", "back", "monitor", "Back to the monitor."),
        Key("j,down", "down", "down", "One line on.", palette=False),
        Key("k,up", "up", "up", "One line back.", palette=False),
        Key("l,right", "next", "next part", "To the next part of the page.", palette=False),
        Key("h,left", "previous", "part before", "To the part before.", palette=False),
        Key("space,pagedown", "page_down", "page down", "A page on.", footer=False, palette=False),
        Key("b,pageup", "page_up", "page up", "A page back.", footer=False, palette=False),
        Key("g,home", "first", "first", "To the start.", footer=False, palette=False),
        Key("G,end", "last", "last", "To the end.", footer=False, palette=False),
    )
    CSS = """
    SealScreen #title { height: 1; margin-bottom: 1; }
    SealScreen #page { height: 1fr; }
    """

    def __init__(self, run: RunDirectory, snapshot: RunSnapshot | None = None):
        super().__init__()
        self.run = run
        self._snapshot = snapshot
        self._page = Page((), ())
        self._top = 0

    def compose(self) -> ComposeResult:
        yield Lines(self._paint_title, id="title")
        yield Lines(self._paint_page, id="page")
        yield KeyBar()

    def on_screen_resume(self) -> None:
        self.finetui.screen_shown()

    def show_run(self, snapshot: RunSnapshot) -> None:
        """Draw this snapshot; nothing is written where the seal is as it was."""
        self._snapshot = snapshot
        for widget in self.query(Lines):
            widget.repaint()

    def _paint_title(self, width: int, height: int) -> list[Text]:
        return [monitor_text.title_line(self._snapshot, width, self.look)] if self._snapshot else []

    def _paint_page(self, width: int, height: int) -> list[Text]:
        if self._snapshot is None:
            return []
        self._page = seal_page(self._snapshot.state, width, self.look)
        self._top = max(0, min(self._top, len(self._page.lines) - height))
        return list(self._page.lines[self._top : self._top + height])

    def _go_to(self, line: int) -> None:
        self._top = max(0, line)
        self.query_one("#page", Lines).repaint()

    def do_back(self) -> None:
        self.app.pop_screen()

    def do_down(self) -> None:
        self._go_to(self._top + 1)

    def do_up(self) -> None:
        self._go_to(self._top - 1)

    def do_page_down(self) -> None:
        self._go_to(self._top + self._page_height())

    def do_page_up(self) -> None:
        self._go_to(self._top - self._page_height())

    def _page_height(self) -> int:
        """Lines by which a page moves: one stays, so that the eye finds its place."""
        return max(1, self.query_one("#page", Lines).size.height - 1)

    def do_next(self) -> None:
        self._go_to(next((each for each in self._page.sections if each > self._top), self._top))

    def do_previous(self) -> None:
        self._go_to(next((each for each in reversed(self._page.sections) if each < self._top), 0))

    def do_first(self) -> None:
        self._go_to(0)

    def do_last(self) -> None:
        self._go_to(len(self._page.lines))
