"""Choose the model to plan for: on this machine, or one of the catalogue that need not be here yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from profiles.problem import Problem
from tui.widgets.new_run.model import shape_facts
from tui.widgets.new_run.source import SourceStep
from tui.widgets.new_run.text import facts

if TYPE_CHECKING:
    from profiles.geometry import Geometry

WHERE = {
    "files": "on this machine",
    "config": "its config.json alone: to plan, not to run",
    "catalogue": "not on this machine: to plan, not to run",
}


class PlanModelStep(SourceStep):
    """Posts `Done` with a folder, or with a catalogue name as its path."""

    kind = "model"

    @property
    def empty_words(self) -> str:
        return "Choose a model to plan for: a folder with a config.json, or a name from the catalogue."

    def refusal(self, found: Geometry) -> Problem | None:
        return None

    def describe(self, found: Geometry, width: int) -> Text:
        rows = [*shape_facts(found, self.look), ("where", WHERE[found.source])]
        return facts(rows, self.look, 15, width)
