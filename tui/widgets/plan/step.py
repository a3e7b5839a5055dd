"""The plan step of New run: what the data and the model cost here, and which profile the run starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from textual import work
from textual.message import Message

from profiles.problem import Problem
from tui.telling import tell
from tui.widgets.new_run.draft import Draft, Value
from tui.widgets.plan.board import MOVABLE
from tui.widgets.plan.sources import PlanSources
from tui.widgets.plan.view import PlanView

if TYPE_CHECKING:
    from engine.propose import Gathered
    from profiles.planner import Plan


class PlanStep(PlanView):
    """Posts `Done` with the chosen profile and its changes in the draft. Reads and plans in threads."""

    class Done(Message):
        """A person chose a profile."""

    def __init__(
        self,
        gather: Callable[[Draft], Gathered],
        plan_for: Callable[[Draft], Plan],
        sources: PlanSources,
        id: str,
    ):
        super().__init__(sources, id)
        self._gather, self._plan_for = gather, plan_for
        self.draft = Draft()
        self._going = False

    def open(self, draft: Draft) -> None:
        """Plan for the model and data in `draft`; what was chosen or changed before is kept."""
        self.draft, self._going = draft, False
        self.say("reading the data and working out what fits …")
        self._plan_in_thread(replace(draft, overrides=self._kept(draft), moved=None))

    def next(self) -> None:
        """Take the chosen profile; with the plan still being made, take the best one when it is."""
        board = self.board
        if board is None:
            self._going = True
            return
        row = board.row
        self.draft.profile = row.proposed.name if board.cursor else None
        self.draft.moved = row.proposed if row.changes else None
        self.draft.overrides = self._kept(self.draft) | row.changes
        self.post_message(self.Done())

    @staticmethod
    def _kept(draft: Draft) -> dict[str, Value]:
        """The changes that the plan is made around: those that cannot be moved on it."""
        return {field: value for field, value in draft.overrides.items() if field not in MOVABLE}

    @work(thread=True, exclusive=True, group="plan")
    def _plan_in_thread(self, asked: Draft) -> None:
        found: Plan | Problem
        gathered = asked.gathered
        try:
            gathered = gathered or self._gather(asked)
            found = self._plan_for(replace(asked, gathered=gathered))
        except Problem as problem:
            found = problem
        tell(self._planned, gathered, found)

    def _planned(self, gathered: Gathered | None, found: Plan | Problem) -> None:
        self.draft.gathered = gathered
        if isinstance(found, Problem):
            self._going = False
            self.say(found)
            return
        moved = {field: value for field, value in self.draft.overrides.items() if field in MOVABLE}
        self.show(found, self.draft.profile, moved)
        if self._going:
            self.next()
