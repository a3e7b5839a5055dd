"""Pilots that wait until an app is done with a key and has drawn what came of it, however busy the machine is."""

from __future__ import annotations

import asyncio
from functools import partialmethod

import pytest
import textual.app
import textual.pilot
from textual._context import active_app
from textual._wait import wait_for_idle
from textual.app import App, ScreenStackError
from textual.pilot import Pilot

MOST_ROUNDS = 10_000
"""Of the event loop: a key takes some dozens. And of looking whether the screen is drawn: it mostly is."""
FRAME_SECONDS = 1 / 60
"""Textual draws by a timer with this interval."""
PATIENCE_SECONDS = 3600
"""For what always comes to its end; a machine may hold a process for minutes."""


async def _nothing_left() -> None:
    """Wait until the event loop has nothing to do but wait."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    for _ in range(MOST_ROUNDS):
        if not ready:
            return
        await asyncio.sleep(0)
    raise AssertionError("the app is never done")


def _is_drawn(app: App) -> bool:
    """Whether nothing of the screen in front waits for the timer that lays out and draws."""
    if app._exit or app._exception is not None:
        return True
    try:
        screen = app.screen
    except ScreenStackError:
        return True
    waits = screen._layout_required or screen._scroll_required or screen._repaint_required
    return not (waits or screen._dirty_widgets or screen._callbacks)


async def _all_drawn() -> None:
    """Wait until the event loop has nothing to do, and nothing is to be drawn."""
    app = active_app.get()
    for _ in range(MOST_ROUNDS):
        await _nothing_left()
        if _is_drawn(app):
            return
        await asyncio.sleep(FRAME_SECONDS)
    raise AssertionError("the app never stops drawing")


@pytest.fixture(autouse=True)
def idle_when_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Textual takes a process for idle that used little of its time, which is true also of one that gets no time."""

    async def idle(*limits: float) -> None:
        await _all_drawn()
        await wait_for_idle(*limits)
        await _all_drawn()

    monkeypatch.setattr(textual.app, "wait_for_idle", idle)
    monkeypatch.setattr(textual.pilot, "wait_for_idle", idle)
    patient = partialmethod(Pilot._wait_for_screen, timeout=PATIENCE_SECONDS)
    monkeypatch.setattr(Pilot, "_wait_for_screen", patient)
