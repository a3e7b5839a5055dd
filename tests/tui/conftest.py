"""Pilots that wait until an app is done with a key, however busy the machine is."""

from __future__ import annotations

import asyncio

import pytest
import textual.app
import textual.pilot
from textual._wait import wait_for_idle

MOST_ROUNDS = 10_000
"""Of the event loop: a key takes some dozens."""


async def _nothing_left() -> None:
    """Wait until the event loop has nothing to do but wait."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    for _ in range(MOST_ROUNDS):
        if not ready:
            return
        await asyncio.sleep(0)
    raise AssertionError("the app is never done")


@pytest.fixture(autouse=True)
def idle_when_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Textual takes a process for idle that used little of its time, which is true also of one that gets no time."""

    async def idle(*limits: float) -> None:
        await _nothing_left()
        await wait_for_idle(*limits)
        await _nothing_left()

    monkeypatch.setattr(textual.app, "wait_for_idle", idle)
    monkeypatch.setattr(textual.pilot, "wait_for_idle", idle)
