"""Plan: what a model costs here before it is loaded, what else could be trained, and which card it would need."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.widgets import ContentSwitcher
from textual.worker import get_current_worker

from engine.spec import PrivacySection
from profiles.problem import Problem, printable
from tui.keys import APP_KEYS, Key, KeyedScreen
from tui.plan_views import CARD_FACTS, HERE, MODEL_FACTS
from tui.plan_words import device_name, model_words
from tui.seal_words import level_line
from tui.telling import tell
from tui.widgets.key_bar import KeyBar
from tui.widgets.lines import Lines
from tui.widgets.new_run.places import label
from tui.widgets.new_run.source import SourceStep
from tui.widgets.new_run.text import drawable
from tui.widgets.painted import cut, spread
from tui.widgets.plan.matrix import PlanMatrix
from tui.widgets.plan.model import PlanModelStep
from tui.widgets.plan.sources import PlanSources
from tui.widgets.plan.view import PlanView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.seal.ability import Ability
    from profiles.geometry import Geometry
    from profiles.hardware import Hardware
    from profiles.planner import Plan
    from tui.plan_views import ViewRow

VIEWS = ("plan", "models", "cards")
TITLES = {
    "model": "choose a model",
    "plan": "what it costs",
    "models": "what could I train here?",
    "cards": "which card would I need?",
}
KEYS_OF = {
    "model": ("take", "back", "view", "type_path"),
    "plan": ("take", "back", "view", "setting", "less", "more", "reset"),
    "models": ("take", "back", "view"),
    "cards": ("take", "back", "view"),
}
TAKES = {
    "model": ("plan", "Plan for the highlighted model."),
    "plan": ("new run", "Begin a run of this model with this profile."),
    "models": ("plan it", "Plan for the highlighted model."),
    "cards": ("plan for it", "Plan for the highlighted card, as if it were here."),
}
ROWS_AT_ONCE = 4
"""Rows of a view that come to the screen together: each drawing costs bytes."""


class PlanScreen(KeyedScreen):
    """A model is chosen first; `v` then goes through the views. `sources` stands between it and the engine."""

    TITLE_WORD = "Plan"
    AUTO_FOCUS = ""
    KEYS = (
        Key("enter", "take", "take", "Go on with what is highlighted."),
        Key("escape", "back", "back", "Go back one step; from the first one, leave."),
        Key("v", "view", "view", "The next of: the plan, what could I train here?, which card would I need?"),
        Key("slash", "type_path", "find", "Type a few letters of a name, or a path; Tab completes it."),
        Key("s,tab", "setting", "setting", "Choose which setting of the profile left and right change."),
        Key("left,h", "less", "less", "Take the next smaller or the previous value.", footer=False),
        Key("right,l", "more", "more", "Take the next larger or the following value."),
        Key("r", "reset", "reset", "Take the profile as it was proposed.", footer=False),
    )
    VERTICAL_BREAKPOINTS = [(0, "-low"), (34, "-tall")]  # noqa: RUF012
    CSS = """
    PlanScreen.-tall #seal { margin-bottom: 1; }
    PlanScreen ContentSwitcher { height: 1fr; }
    """

    def __init__(self, sources: PlanSources | None = None):
        super().__init__()
        self.sources = sources or PlanSources()
        self.view = "model"
        self._model: Path | None = None
        self._geometry: Geometry | None = None
        self._machine: Hardware | None = None
        """The card that is planned for instead of this machine."""
        self._speed: Literal["unknown", "measuring", "settled"] = "unknown"
        """Of this machine: settled once it was measured, or was found not to be measurable now."""
        self._ability: Ability | None = None
        self._counted: dict[str, Geometry | None] = {}
        """The model that each of the wider views was worked out for, once it was to its end."""

    def compose(self) -> ComposeResult:
        yield Lines(self._title_line, id="title")
        yield Lines(self._seal_line, id="seal")
        with ContentSwitcher(initial=self.view):
            yield PlanModelStep(self.sources.places, self.sources.find, id="model")
            yield PlanView(self.sources, id="plan")
            yield PlanMatrix("model", MODEL_FACTS, id="models")
            yield PlanMatrix("card", CARD_FACTS, id="cards")
        yield KeyBar()

    def on_mount(self) -> None:
        self.set_class(self.look.ascii, "-ascii")
        self.query_one(PlanModelStep).focus_picker()
        self._try_ability()

    @property
    def all_keys(self) -> tuple[Key, ...]:
        word, sentence = TAKES[self.view]
        first = Key("enter", "take", word, sentence)
        return (first, *(key for key in self.KEYS[1:] if key.name in KEYS_OF[self.view]), *APP_KEYS)

    def why_not(self, name: str) -> str | None:
        if any(key.name == name for key in self.KEYS) and name not in KEYS_OF[self.view]:
            return "not in this view"
        if self.view != "plan":
            return None
        if name == "take":
            return self._why_no_run()
        return self.plan.why_not(name) if name in ("setting", "less", "more", "reset") else None

    def _why_no_run(self) -> str | None:
        if self.plan.board is None:
            return "there is no plan yet"
        if self._machine is not None:
            return "that card is not in this machine"
        assert self._geometry is not None
        return None if self._geometry.source == "files" else "its weights are not on this machine"

    @property
    def plan(self) -> PlanView:
        return self.query_one(PlanView)

    # Where the keys lead

    def do_take(self) -> None:
        if self.view == "plan":
            from tui.screens.new_run import NewRunScreen

            assert self.plan.board is not None
            self.app.switch_screen(NewRunScreen(model=self._model, profile=self.plan.board.row.proposed.name))
        elif self.view in ("models", "cards"):
            row = self.query_one(f"#{self.view}", PlanMatrix).row
            if row is None:
                return
            if self.view == "models":
                self._plan_for(Path(row.name), None)
            else:
                assert self._model is not None
                self._plan_for(self._model, None if row.name == HERE else row.hardware)

    def do_back(self) -> None:
        if self.view == "model":
            self.dismiss()
        elif self.view != "plan" and self._model is not None:
            self._open("plan")
        elif self._machine is not None:
            assert self._model is not None
            self._plan_for(self._model, None)
        else:
            self._open("model")

    def do_view(self) -> None:
        following = VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)] if self.view in VIEWS else "models"
        if self._geometry is None and following == "cards":
            following = "plan"  # the other two are about one model
        if self._model is None and following == "plan":
            following = "model"
        self._open(following)

    def do_type_path(self) -> None:
        self.query_one(PlanModelStep).picker.enter_line("")

    def do_setting(self) -> None:
        self.plan.choose_setting(1)

    def do_less(self) -> None:
        self.plan.change(-1)

    def do_more(self) -> None:
        self.plan.change(1)

    def do_reset(self) -> None:
        self.plan.reset()

    @on(SourceStep.Done)
    def _model_chosen(self, event: SourceStep.Done) -> None:
        event.stop()
        if self.view == "model":  # and not left while it was being read
            self._plan_for(event.path, None)

    @on(PlanView.Changed)
    def _plan_changed(self, event: PlanView.Changed) -> None:
        event.stop()
        self.query_one(KeyBar).repaint()

    def _open(self, view: str) -> None:
        self.view = view
        self.query_one(ContentSwitcher).current = view
        if view == "model":
            self.query_one(PlanModelStep).focus_picker()
        elif view == "plan":
            self.plan.focus_table()
        else:
            matrix = self.query_one(f"#{view}", PlanMatrix)
            matrix.focus()
            wanted = self._geometry if view == "cards" else None
            if view not in self._counted or self._counted[view] is not wanted:
                matrix.clear()
                self._count_in_thread(view, matrix, wanted)
        self._repaint_head()
        self.query_one(KeyBar).repaint()

    def _repaint_head(self) -> None:
        self.query_one("#title", Lines).repaint()
        self.query_one("#seal", Lines).repaint()

    # What takes time

    @work(thread=True)
    def _try_ability(self) -> None:
        tell(self._tell_ability, self.sources.ability())

    def _tell_ability(self, ability: Ability) -> None:
        self._ability = ability
        self.query_one("#seal", Lines).repaint()

    def _plan_for(self, model: Path, machine: Hardware | None) -> None:
        if model != self._model:
            self._geometry = None  # until its plan is there, the cards would be those for another one
        self._model, self._machine = model, machine
        self._open("plan")
        self.plan.say("working out what fits …")
        self._plan_in_thread(model, machine)

    @work(thread=True, exclusive=True, group="plan")
    def _plan_in_thread(self, model: Path, machine: Hardware | None) -> None:
        found: Plan | Problem
        try:
            found = self.sources.plan(model, machine or self.sources.hardware())
        except Problem as problem:
            found = problem
        tell(self._planned, found)

    def _planned(self, found: Plan | Problem) -> None:
        if isinstance(found, Problem):
            self._geometry = None
            self.plan.say(found)
        else:
            self._geometry = found.geometry
            self.plan.show(found)
            if self._machine is None and self._speed == "unknown":
                self._measure_speed(found.hardware)
        self._repaint_head()
        self.query_one(KeyBar).repaint()

    def _measure_speed(self, hardware: Hardware) -> None:
        """Measure this machine beside everything else, and price the plan anew with what was found.

        In a thread of its own kind: nobody who quits has to wait for a benchmark.
        """
        self._speed = "measuring"

        def measure() -> None:
            measured = self.sources.measure_speed(hardware)
            with suppress(RuntimeError):  # the app was left meanwhile
                self.call_later(self._speed_settled, measured)

        threading.Thread(target=measure, daemon=True, name="speed").start()
        self._repaint_head()

    def _speed_settled(self, measured: bool) -> None:
        self._speed = "settled"
        if not (self.app.is_running and self.is_running):
            return
        self._repaint_head()
        if measured and self._machine is None:
            assert self._model is not None
            if self.plan.board is not None:
                self._price_in_thread(self._model)
            else:  # a plan that is being made may have begun before
                self._plan_in_thread(self._model, None)

    @work(thread=True, exclusive=True, group="plan")
    def _price_in_thread(self, model: Path) -> None:
        try:
            found = self.sources.plan(model, self.sources.hardware())
        except Problem:
            return  # the plan that is shown stands
        tell(self._priced, found)

    def _priced(self, found: Plan) -> None:
        self.plan.update(found)

    @work(thread=True, exclusive=True, group="views")
    def _count_in_thread(self, view: str, matrix: PlanMatrix, geometry: Geometry | None) -> None:
        hardware = self.sources.hardware()
        rows: Iterator[ViewRow]
        rows = self.sources.models(hardware) if geometry is None else self.sources.cards(geometry, hardware)
        worker = get_current_worker()
        some: list[ViewRow] = []
        for row in rows:
            some.append(row)
            if worker.is_cancelled:
                return
            if len(some) == ROWS_AT_ONCE:
                tell(matrix.add, some)
                some = []
        tell(self._counted_all, view, matrix, geometry, some)

    def _counted_all(self, view: str, matrix: PlanMatrix, geometry: Geometry | None, rest: list[ViewRow]) -> None:
        matrix.add(rest, done=True)
        self._counted[view] = geometry

    def _seal_line(self, width: int, height: int) -> list[Text]:
        """Which seal a run of this plan would have; nothing where the plan is another machine's."""
        look, ability = self.look, self._ability
        if ability is None or self.view != "plan" or self._machine is not None:
            return []
        line = Text().append("seal   ", style=look.dim)
        words = drawable(level_line(PrivacySection().seal, ability, width - line.cell_len), look)
        line.append(words, style=look.warn if ability.missing else look.dim)
        return [cut(line, width, look)]

    def _title_line(self, width: int, height: int) -> list[Text]:
        look = self.look
        line = Text().append("Plan", style=look.strong)
        if self._model is not None and self.view != "model":
            shown = [] if self.view == "models" else [printable(label(self._model))]
            if self._geometry is not None and shown:
                shown.append(model_words(self._geometry))
            if self._machine is not None and self.view == "plan":
                shown.append(f"on {device_name(self._machine)}, not this machine")
            line.append("   ").append(drawable(look.separator.join(shown), look), style=look.dim)
        right = TITLES[self.view]
        if self._speed == "measuring" and self.view == "plan" and self._machine is None:
            right = f"measuring this machine's speed {look.ellipsis}"
        return [spread(line, Text().append(right, style=look.accent), width, look)]
