"""Purge on Home: what goes and what remains is shown, a word is typed, and the table is right afterwards."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
from fake_run import make_run
from fake_source import FakeSource
from locked import held
from screen_fakes import HOLD_SECONDS, PLAIN_TERMINAL, read_no_more, screen_text, until
from textual.pilot import Pilot

import engine.run.evidence.purging
from engine.run.directory import RunDirectory, list_runs
from engine.run.evidence.caches import Caches
from engine.run.evidence.purging import PurgePlan, plan_purge
from engine.run.summary import RunSummary, summaries
from profiles.problem import Problem
from tui.app import FinetuiApp
from tui.purge_words import going_lines, remaining_lines
from tui.screens.home import HomeScreen
from tui.screens.purge import PurgeDialog
from tui.terminal import Terminal
from tui.widgets.run_table import RunTable


class DiskSource(FakeSource):
    """The runs that are on the disk."""

    def runs(self) -> tuple[RunSummary, ...]:
        return tuple(summaries())


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunDirectory, ...]:
    """Two ended runs in FINETUI_HOME, newest first."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    for number, name in enumerate(("older", "newer")):
        make_run(tmp_path, name, until=1200, outcome="finished", started_at=1_767_600_000.0 + 100 * number)
    return tuple(list_runs())


def start(terminal: Terminal | None = None) -> FinetuiApp:
    return FinetuiApp(terminal=terminal or Terminal(), source=DiskSource())


async def ask(pilot: Pilot) -> None:
    """Wait for the table, press the key, and wait for the plan."""
    await until(pilot, lambda: "newer" in screen_text(pilot.app))
    await pilot.press("P")
    await until(pilot, lambda: "type purge" in screen_text(pilot.app))


def words(text: str) -> str:
    """Without the dialog's border, what is behind it, and where its lines break."""
    inside = (line.split("│")[1] for line in text.splitlines() if line.count("│") == 2)
    return re.sub(r"\s+", "", "".join(inside))


async def test_it_goes_once_the_word_is_typed_and_the_table_is_read_again(runs: tuple[RunDirectory, ...]) -> None:
    newer, older = runs
    app = start()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ask(pilot)
        plan = plan_purge(newer)
        for line in (*going_lines(plan), *remaining_lines(plan)):
            assert re.sub(r"\s+", "", line) in words(screen_text(app))
        for keys in (["enter"], ["y"], [*"purg", "enter"]):
            await pilot.press(*keys)
            assert isinstance(app.screen, PurgeDialog) and newer.spec_path.is_file()
        await pilot.press(*["backspace"] * 9, *"purge", "enter")
        # Both at once: it is told for some seconds only.
        told = ("newer is removed", "The data and the base model remain.")
        await until(pilot, lambda: all(each in screen_text(app) for each in told))
        assert not newer.path.exists() and isinstance(app.screen, HomeScreen)
        table = app.screen_stack[0].query_one(RunTable)
        await until(pilot, lambda: [run.name for run in table.runs] == [older.name])
        assert table.run is not None and table.run.name == older.name


async def test_escape_lets_it_be(runs: tuple[RunDirectory, ...]) -> None:
    app = start()
    async with app.run_test(size=(80, 18)) as pilot:
        await ask(pilot)
        await until(pilot, lambda: "up/down scroll" in screen_text(app))
        await pilot.press(*"purge", "escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
    assert list_runs() == list(runs)


async def test_a_live_run_is_refused_with_what_to_do(runs: tuple[RunDirectory, ...]) -> None:
    newer, _ = runs
    app = start()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ask(pilot)
        with held(newer):  # it was resumed meanwhile, elsewhere
            await pilot.press(*"purge", "enter")
            told = ("is live", f"finetui stop {newer.name}")
            await until(pilot, lambda: all(each in " ".join(screen_text(app).split()) for each in told))
            table = app.screen_stack[0].query_one(RunTable)
            await until(pilot, lambda: table.run is not None and table.run.state == "running")
            await pilot.press("P")
            await until(pilot, lambda: "P purge: it is running: s stops it first" in screen_text(app))
            assert isinstance(app.screen, HomeScreen)
    assert list_runs() == list(runs)


async def test_what_cannot_be_planned_is_told_and_nothing_can_be_typed(
    runs: tuple[RunDirectory, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(run: RunDirectory) -> PurgePlan:
        raise Problem(run.name, "has a trainer that outlived its engine", "`finetui doctor` ends it.")

    monkeypatch.setattr(engine.run.evidence.purging, "plan_purge", refuse)
    app = start()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "newer" in screen_text(app))
        await pilot.press("P")
        await until(pilot, lambda: "It has a trainer that outlived its engine." in screen_text(app))
        assert "finetui doctor" in screen_text(app)
        await pilot.press(*"purge", "enter")
        assert isinstance(app.screen, PurgeDialog)
        await pilot.press("escape")
    assert list_runs() == list(runs)


async def test_the_app_goes_on_while_the_disk_is_looked_through(
    runs: tuple[RunDirectory, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def slowly(run: RunDirectory) -> PurgePlan:
        assert go_on.wait(HOLD_SECONDS)
        return plan_purge(run)

    monkeypatch.setattr(engine.run.evidence.purging, "plan_purge", slowly)
    app = start()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "newer" in screen_text(app))
        await pilot.press("P")
        await until(pilot, lambda: "looking at what would go" in screen_text(app))
        await pilot.press("escape")
        await pilot.press("j")
        assert app.screen.query_one(RunTable).run.name == runs[1].name
        go_on.set()
        await pilot.pause()
    assert list_runs() == list(runs)


def made_plan(run: RunDirectory) -> PurgePlan:
    """One with everything that can be told."""
    home = Path("/home/ada")
    shards = frozenset(home / f"finetui/cache/prepared/{number}.safetensors" for number in range(3))
    return PurgePlan(
        run=RunDirectory(home / f".local/share/finetui/runs/{run.name}"),
        caches=Caches(shards, frozenset(), 2),
        folder_bytes=3_410_000_000,
        cache_bytes=48_000_000,
        exports=(home / "models/newer-merged", Path("/srv/share/newer-adapter")),
        base=home / "models/Qwen3-8B",
        data=(home / "data/intake.jsonl", home / "data/letters.csv"),
        entries=14,
        head="0" * 64,
    )


@pytest.mark.parametrize(
    ("size", "terminal"),
    [((80, 24), None), ((200, 50), None), ((80, 24), PLAIN_TERMINAL)],
    ids=["80x24", "200x50", "plain"],
)
def test_picture(
    snap_compare, runs: tuple[RunDirectory, ...], monkeypatch: pytest.MonkeyPatch, size, terminal: Terminal | None
) -> None:
    monkeypatch.setattr(engine.run.evidence.purging, "plan_purge", made_plan)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(HomeScreen, "_paint_detail", lambda *_: [])  # it names the test's own folder

    async def before(pilot: Pilot) -> None:
        await ask(pilot)
        await pilot.press(*"purge")
        await read_no_more(pilot)

    assert snap_compare(start(terminal), terminal_size=size, run_before=before)
