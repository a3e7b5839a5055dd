"""The plan of one model: budget, ranked profiles, movable settings, and the chosen profile explained."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.timer import Timer

from profiles.problem import Problem
from tui import plan_words as words
from tui.telling import tell
from tui.theme import Look, look_of
from tui.widgets.lines import Lines
from tui.widgets.new_run.draft import Value
from tui.widgets.new_run.text import drawable, problem_text
from tui.widgets.painted import cut, spread
from tui.widgets.plan.board import Board
from tui.widgets.plan.detail import Confirming, PlanDetail
from tui.widgets.plan.knobs import PlanKnobs
from tui.widgets.plan.sources import PlanSources
from tui.widgets.plan.table import PlanTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.fit.replay import Replayed
    from profiles.planner import Plan, Profile
    from profiles.settings import Settings

REST_SECONDS = 1.2
"""A replay starts a child process; it is worth one only where a person comes to rest."""


class PlanView(Vertical):
    """Shows a plan given with `show`; `say` shows words in its place. `board` is what a person made of it."""

    DEFAULT_CSS = """
    PlanView { height: 1fr; }
    PlanView #plan-budget { height: 2; margin-bottom: 1; }
    PlanView PlanKnobs { margin: 1 0; }
    PlanView PlanTable { max-height: 40%; }
    PlanView.-low #plan-budget { height: 1; margin-bottom: 0; }
    PlanView.-low PlanKnobs { margin: 0; }
    """

    class Changed(Message):
        """Another profile, or other settings: what the keys can do may have changed."""

    def __init__(self, sources: PlanSources, id: str | None = None):
        super().__init__(id=id)
        self._sources = sources
        self.board: Board | None = None
        self._words = Text()
        self._refusal: Problem | None = None
        self._replayed: dict[Settings, Replayed | Problem] = {}
        self._rest: Timer | None = None
        self._asked = False  # a replay is under way, or will be once nothing has moved for a while
        self._cancelled = threading.Event()

    def compose(self) -> ComposeResult:
        yield Lines(self._paint_budget, id="plan-budget")
        yield PlanTable()
        yield PlanKnobs()
        yield PlanDetail()

    @property
    def look(self) -> Look:
        return look_of(self)

    @property
    def table(self) -> PlanTable:
        return self.query_one(PlanTable)

    @property
    def profile(self) -> Profile | None:
        """The chosen profile, with its changes."""
        return self.board.profile if self.board is not None else None

    def say(self, what: str | Problem) -> None:
        """Show a sentence or a problem and no plan."""
        self.board = None
        self._stop_replay()
        if self.display:  # else the focus is elsewhere
            self.screen.set_focus(None)
        look = self.look
        said = (
            Text().append(drawable(what, look), style=look.dim) if isinstance(what, str) else problem_text(what, look)
        )
        self._words = said
        for widget in (self.table, self.query_one(PlanKnobs), self.query_one(PlanDetail)):
            widget.display = False
        self.query_one("#plan-budget", Lines).styles.height = "1fr"
        self.query_one("#plan-budget", Lines).repaint()

    def show(self, plan: Plan, chosen: str | None = None, changes: Mapping[str, Value] | None = None) -> None:
        """Show `plan` with the cursor on the profile called `chosen`, changed as in `changes`."""
        if not plan.profiles:
            self.say("There is no setting that this model could be trained with.")
            return
        self.board = Board(plan, self._sources.price, chosen, changes)
        self._refusal = self.board.refusal
        self._replayed.clear()
        for widget in (self.table, self.query_one(PlanKnobs), self.query_one(PlanDetail)):
            widget.display = True
        self.query_one("#plan-budget", Lines).styles.height = None
        self.focus_table()
        self._show()

    def focus_table(self) -> None:
        """Let the keys go to the table, where there is one and it is seen."""
        if self.display and self.board is not None:
            self.screen.set_focus(self.table)

    def update(self, plan: Plan) -> None:
        """Show `plan`, of the same model, in place of the one before; what a person chose and changed is kept."""
        before = self.board
        if before is None:
            return
        self.board = Board(plan, self._sources.price, before.row.proposed.name, before.row.changes)
        self.board.choose(before.setting)
        self._refusal = self.board.refusal
        self._show()

    def why_not(self, name: str) -> str | None:
        """Why the key `setting`, `less`, `more` or `reset` cannot be used now; None when it can."""
        if self.board is None:
            return None if name == "next" else "there is no plan yet"
        return "nothing is changed" if name == "reset" and not self.board.row.changes else None

    def change(self, direction: int) -> None:
        """Move the chosen setting down (-1) or up (1)."""
        if self.board is not None:
            self._refusal = self.board.change(direction)
            self._show()

    def choose_setting(self, direction: int) -> None:
        if self.board is not None:
            self.board.choose_setting(direction)
            self.query_one(PlanKnobs).repaint()

    def reset(self) -> None:
        """Take the chosen profile as it was proposed."""
        if self.board is not None:
            self.board.reset()
            self._refusal = None
            self._show()

    def on_resize(self) -> None:
        self.set_class(self.size.height < 20, "-low")

    def on_unmount(self) -> None:
        self._stop_replay()

    def on_show(self) -> None:
        if not self._asked:  # a plan is given before the screen tells that it is seen
            self._begin_rest()

    def on_hide(self) -> None:
        self._stop_replay()

    @on(PlanTable.Moved)
    def _moved(self, event: PlanTable.Moved) -> None:
        event.stop()
        self._refusal = None
        self._show()

    def _show(self) -> None:
        board = self.board
        assert board is not None
        self.query_one("#plan-budget", Lines).repaint()
        self.table.show(board)
        self.query_one(PlanKnobs).show(board)
        self._show_detail()
        self._begin_rest()
        self.post_message(self.Changed())

    def _show_detail(self, confirming: bool = False) -> None:
        assert self.board is not None
        found = Confirming() if confirming else self._replayed.get(self.board.profile.settings)
        self.query_one(PlanDetail).show(self.board, self._refusal, found)

    # The replay

    def _begin_rest(self) -> None:
        """Have the replay begin once nothing has moved for a while. Of a plan that is not seen it does not."""
        self._stop_replay()
        if self.board is not None and self.board.profile.settings not in self._replayed:
            self._asked = True
            self._cancelled = threading.Event()
            self._rest = self.set_timer(REST_SECONDS, partial(self._confirm, self._cancelled))

    def _confirm(self, cancelled: threading.Event) -> None:
        if cancelled.is_set():
            return  # the timer had run out when it was stopped
        board = self.board
        if board is None or not self.is_on_screen:
            self._asked = False
            return
        self._show_detail(confirming=True)
        self._replay_in_thread(board.plan, board.profile.settings, cancelled)

    def _stop_replay(self) -> None:
        self._asked = False
        self._cancelled.set()
        if self._rest is not None:
            self._rest.stop()

    @work(thread=True, exclusive=True, group="replay")
    def _replay_in_thread(self, plan: Plan, settings: Settings, cancelled: threading.Event) -> None:
        found: Replayed | Problem | None
        try:
            found = self._sources.replay(plan.geometry, settings, cancelled)
        except Problem as problem:
            found = problem
        if found is not None and not cancelled.is_set():
            tell(self._confirmed, settings, found)

    def _confirmed(self, settings: Settings, found: Replayed | Problem) -> None:
        self._replayed[settings] = found
        if self.board is not None and self.board.profile.settings == settings:
            self._show_detail()

    # The budget

    def _paint_budget(self, width: int, height: int) -> list[Text]:
        look, board = self.look, self.board
        if board is None:
            return list(self._words.wrap(self.app.console, width)) if self._words else []
        plan = board.plan
        free = Text().append(drawable(words.free_words(plan), look), style=look.strong)
        job = Text().append(words.job_words(plan), style=look.dim)
        holders = words.holder_words(plan)
        rest = f"in use: {', '.join(holders)}" if holders else words.reserve_words(plan)
        budget = Text().append(words.budget_words(plan), style=look.strong)
        budget.append(look.separator + drawable(rest, look), style=look.dim)
        return [spread(free, job, width, look), cut(budget, width, look)]
