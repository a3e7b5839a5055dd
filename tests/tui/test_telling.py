"""What a thread found out while its screen closes is told to nobody, and is no fault."""

from __future__ import annotations

import asyncio
import threading

import pytest
from screen_fakes import ScreenApp
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Static

from tui.telling import tell


class LastWidget(Static):
    """Stays until its screen's thread has told what it found, when the other widgets are gone already."""

    async def on_unmount(self) -> None:
        screen = self.screen
        assert isinstance(screen, LookingScreen)
        while screen.query("#found"):
            await asyncio.sleep(0.001)
        screen.may_tell.set()
        assert await asyncio.to_thread(screen.told.wait, 60)


class LookingScreen(Screen[None]):
    def __init__(self) -> None:
        super().__init__()
        self.may_tell, self.told = threading.Event(), threading.Event()

    def compose(self) -> ComposeResult:
        yield Static(id="found")
        yield LastWidget()

    def on_mount(self) -> None:
        self.run_worker(self._look, thread=True)

    def _look(self) -> None:
        try:
            assert self.may_tell.wait(60)
            tell(self._show)
        finally:
            self.told.set()

    def _show(self) -> None:
        self.query_one("#found", Static).update("found")


@pytest.mark.parametrize("leave", ["the screen", "the app"])
async def test_a_screen_that_closes_is_told_nothing(leave: str) -> None:
    screen = LookingScreen()
    app = ScreenApp(screen)
    async with app.run_test() as pilot:
        if leave == "the screen":
            await app.pop_screen()
            await pilot.pause()
            assert app.is_running
    assert screen.told.is_set()
