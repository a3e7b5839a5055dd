"""While a seal is tested, before a trainer starts: the same words on Home, on the Monitor and in the commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_run import make_run
from fake_seal import OPENED
from fake_source import FakeSource, summary
from screen_fakes import screen_text, until

from engine.run.directory import RunDirectory
from engine.run.telemetry.events import TESTING_SEAL
from engine.run.telemetry.reading import read_state
from tui.app import FinetuiApp
from tui.commands.wording import state_words
from tui.seal_words import seal_words
from tui.terminal import Terminal

PHASE = {"kind": "phase", "phase": "preparing", "detail": TESTING_SEAL, "done": 0, "total": 0}
WORDS = "◐ testing the seal"
LONG_NAME = "a-name-that-takes-all-the-room-there-is"


async def test_home_and_monitor_say_it(tmp_path: Path) -> None:
    run = RunDirectory(make_run(tmp_path, "going", then=[PHASE]))
    tested = summary("going", "preparing", path=run.path, doing=TESTING_SEAL, seal="", seconds_left=1080)
    assert state_words(tested) == WORDS
    others = (summary(LONG_NAME), summary("last"))
    app = FinetuiApp(terminal=Terminal(), source=FakeSource((tested, *others), live=(run.name,)))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: WORDS in screen_text(app) and "each way out is tried" in screen_text(app))
        assert "probes refused" not in screen_text(app)  # that was the seal of an attempt before
        await pilot.press("escape")
        await until(pilot, lambda: "3 runs" in screen_text(app) and LONG_NAME[:11] in screen_text(app))
        assert f"0.421  {WORDS} " in screen_text(app)
        await pilot.press("slash", *"testing", "enter")
        await until(pilot, lambda: LONG_NAME[:10] not in screen_text(app))
        assert WORDS in screen_text(app)


@pytest.mark.parametrize("seal", [OPENED, None])
def test_what_was_found_open_before_stays_told(tmp_path: Path, seal: dict | None) -> None:
    said = seal_words(read_state(RunDirectory(make_run(tmp_path, "going", seal=seal, then=[PHASE]))))
    assert (said.word if said is not None else None) == ("seal open" if seal else None)
