"""New run: model, data, plan, settings, review, launch. Enter takes what is proposed; Esc backs out one step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.widgets import ContentSwitcher

from engine.seal.request import LEVELS, Level
from tui.keys import APP_KEYS, Key, KeyedScreen
from tui.seal_words import LEVEL_QUESTION, LEVEL_WORDS, OFF_DETAIL, OFF_QUESTION, level_line, level_words
from tui.telling import tell
from tui.theme import look_of
from tui.widgets.data.board import DataChoice
from tui.widgets.dialog import Choice, ChoiceDialog
from tui.widgets.key_bar import KeyBar
from tui.widgets.lines import Lines
from tui.widgets.new_run.data import DataStep
from tui.widgets.new_run.draft import SEAL, Draft
from tui.widgets.new_run.model import ModelStep
from tui.widgets.new_run.places import label
from tui.widgets.new_run.review import ReviewStep
from tui.widgets.new_run.settings import SettingsStep
from tui.widgets.new_run.source import SourceStep
from tui.widgets.new_run.sources import Sources
from tui.widgets.painted import spread
from tui.widgets.plan.board import MOVABLE
from tui.widgets.plan.step import PlanStep

if TYPE_CHECKING:
    from engine.seal.ability import Ability

DIALOG_ROOM = 56
"""Characters of a choice's words: what a dialog's border, padding and key leave of it."""
STEPS = ("model", "data", "plan", "settings", "review")
# Which steps a key belongs to; the footer and the help show those of the present one.
KEYS_OF = {
    "model": ("next", "back", "type_path"),
    "data": ("next", "back", "type_path", "add_file", "hold_out", "look"),
    "plan": ("next", "back", "setting", "less", "more", "reset", "seal"),
    "settings": ("next", "back", "less", "more", "edit_value", "reset", "seal"),
    "review": ("next", "back", "wait", "smaller", "rename", "seal", "copy_command"),
}


class NewRunScreen(KeyedScreen):
    """Gathers a Draft step by step. `sources` stands between it and the engine."""

    TITLE_WORD = "New run"
    KEYS = (
        Key("enter", "next", "next", "Take what is highlighted or proposed and go to the next step."),
        Key("escape", "back", "back", "Go back one step; from the first one, leave."),
        Key("slash", "type_path", "path", "Type a path, or a few letters to filter by; Tab completes it."),
        Key("space", "add_file", "add", "Learn from several files: add this one, or take it out."),
        Key("o", "hold_out", "hold out", "Never train on the highlighted file: measure by it."),
        Key(
            "x",
            "look",
            "look inside",
            "See rows, tokens, lengths and faults of these files, and set how they are read.",
        ),
        Key("s,tab", "setting", "setting", "Choose which setting of the profile left and right change."),
        Key("left,h", "less", "less", "Take the next smaller or the previous value."),
        Key("right,l", "more", "more", "Take the next larger or the following value."),
        Key("e", "edit_value", "type", "Type a value; a digit begins one too."),
        Key("r", "reset", "reset", "Go back to the proposed value."),
        Key("n", "rename", "name", "Give the run another name."),
        Key("p", "seal", "seal", "Choose how surely the trainer is kept from the network: required, best or off."),
        Key("w", "wait", "wait", "Let the run wait in the queue until its memory is free."),
        Key("d", "smaller", "next profile", "Plan with the memory that is free now: the next profile down."),
        Key("y", "copy_command", "copy command", "Copy the command that starts the same run."),
    )
    CSS = """
    NewRunScreen #steps { height: 1; margin-bottom: 1; }
    NewRunScreen ContentSwitcher { height: 1fr; }
    """

    def __init__(
        self,
        sources: Sources | None = None,
        model: Path | None = None,
        profile: str | None = None,
        data: DataChoice | None = None,
    ):
        """Begin with the first of model, data and plan that is not chosen already; plan with `profile`."""
        super().__init__()
        self.sources = sources or Sources()
        self.draft = Draft(model=model, profile=profile)
        self._ability: Ability | None = None
        self._came_with_data = data is not None
        """The choice of files is then passed over."""
        if data is not None:
            self.draft.take_data(data)
        self.step = "model" if self.draft.model is None else "data" if data is None else "plan"

    def compose(self) -> ComposeResult:
        sources = self.sources
        yield Lines(self._steps_line, id="steps")
        with ContentSwitcher(initial=self.step):
            yield ModelStep(sources.model_places, sources.inspect_model, id="model")
            yield DataStep(sources.data_places, sources.preview, id="data")
            yield PlanStep(sources.gather, sources.plan_for, sources.plan, id="plan")
            yield SettingsStep(sources.propose, id="settings")
            yield ReviewStep(sources, id="review")
        yield KeyBar()

    def on_mount(self) -> None:
        self.set_class(look_of(self.query_one(KeyBar)).ascii, "-ascii")
        self._open(self.step)
        self._try_ability()

    @property
    def all_keys(self) -> tuple[Key, ...]:
        keys = [key for key in self.KEYS if key.name in KEYS_OF[self.step]]
        if self.step == "plan":  # the arrows around the value tell of the other direction
            keys = [replace(key, footer=key.name != "less") for key in keys]
        if self.step == "settings":  # its row is in view, and changed as every other
            keys = [replace(key, footer=key.footer and key.name != "seal") for key in keys]
        if self.step == "review":
            if self.query_one(ReviewStep).room is None:  # nobody has to choose while the memory is free
                keys = [key for key in keys if key.name not in ("wait", "smaller")]
            keys[0] = replace(keys[0], label="start", help="Start the run. It goes on when the app is closed.")
        return (*keys, *APP_KEYS)

    def why_not(self, name: str) -> str | None:
        if any(key.name == name for key in self.KEYS) and name not in KEYS_OF[self.step]:
            return "not in this step"
        if self.step == "plan" and name in ("next", "setting", "less", "more", "reset"):
            return self.query_one(PlanStep).why_not(name)
        if name == "look":
            return None if self.query_one(DataStep).choice.sources else "there is no file to look into"
        if self.step == "review" and name in ("wait", "smaller"):
            return self.query_one(ReviewStep).why_not(name)
        return None

    @on(SourceStep.Done)
    def _source_chosen(self, event: SourceStep.Done) -> None:
        event.stop()
        if event.step.id != self.step:
            return  # whoever went back while it was being read stays there
        if isinstance(event.step, ModelStep):
            if self.draft.model != event.path:
                self.draft.overrides.clear()  # what suited one model says nothing of another
                self.draft.profile = self.draft.moved = None
            self.draft.model, self.draft.gathered = event.path, None
            self._open("plan" if self._came_with_data else "data")
        elif isinstance(event.step, DataStep):
            choice = event.step.choice_of(event.path)
            if not self.draft.learns_from(choice):
                self.draft.take_data(choice)
            self.draft.gathered = None
            self._open("plan")

    @on(PlanStep.Done)
    def _plan_done(self, event: PlanStep.Done) -> None:
        event.stop()
        if self.step == "plan":
            self._open("settings")

    @on(PlanStep.Changed)
    def _plan_changed(self, event: PlanStep.Changed) -> None:
        event.stop()
        self.query_one(KeyBar).repaint()

    @on(SettingsStep.Changed)
    def _settings_changed(self, event: SettingsStep.Changed) -> None:
        event.stop()
        self.query_one("#steps", Lines).repaint()

    @on(SettingsStep.Done)
    def _settings_done(self, event: SettingsStep.Done) -> None:
        event.stop()
        if self.step == "settings":
            self._open("review")

    @on(ReviewStep.RoomTold)
    def _room_told(self, event: ReviewStep.RoomTold) -> None:
        event.stop()
        self.query_one(KeyBar).repaint()

    @on(ReviewStep.Launched)
    def _launched(self, event: ReviewStep.Launched) -> None:
        event.stop()
        self.app.open_run(event.run)  # type: ignore[attr-defined]

    def do_next(self) -> None:
        if self.step == "plan":
            self.query_one(PlanStep).next()
        elif self.step == "settings":
            self.query_one(SettingsStep).next()
        elif self.step == "review":
            self.query_one(ReviewStep).launch()

    def do_back(self) -> None:
        review = self.query_one(ReviewStep)
        if review.launching or review.stop_rename() or self.query_one(SettingsStep).stop_edit():
            return
        place = STEPS.index(self.step)
        if place:
            self._open(STEPS[place - 1])
        else:
            self.dismiss()

    def do_type_path(self) -> None:
        self._source.picker.enter_line("")

    def do_add_file(self) -> None:
        self.query_one(DataStep).toggle_train()

    def do_hold_out(self) -> None:
        self.query_one(DataStep).toggle_held_out()

    def do_look(self) -> None:
        from tui.screens.data import DataScreen

        choice = self.query_one(DataStep).choice
        if self.draft.learns_from(choice):  # looked into before: with what was set there
            choice = self.draft.choice
        choice = replace(choice, model=self.draft.model)
        self.app.push_screen(DataScreen(self.sources.data, choice, gives_back=True), self._looked)

    def _looked(self, choice: DataChoice | None) -> None:
        if choice is not None:
            self.query_one(DataStep).take(choice.paths, choice.held_out_path)
            self.draft.take_data(choice)
            self._open("plan")

    def do_setting(self) -> None:
        self.query_one(PlanStep).choose_setting(1)

    def do_less(self) -> None:
        self._changing.change(-1)

    def do_more(self) -> None:
        self._changing.change(1)

    def do_edit_value(self) -> None:
        self.query_one(SettingsStep).start_edit()

    def do_reset(self) -> None:
        self._changing.reset()

    def do_seal(self) -> None:
        """Ask for the level. Its letters are no Enter, which a person presses from step to step."""
        words = {level: f"{level}: {LEVEL_WORDS[level]}" for level in LEVELS} | {"off": "off: train without it"}
        if self._ability is not None and self._ability.missing:
            words |= {level: level_line(level, self._ability, DIALOG_ROOM) for level in ("required", "best")}
        choices = tuple(Choice(level[0], words[level], level) for level in LEVELS)
        self._ask_level(LEVEL_QUESTION, choices, f"keep {self.draft.seal}")

    @on(SettingsStep.Unsealing)
    def _ask_unsealing(self) -> None:
        self._ask_level(OFF_QUESTION, (Choice("o", "off: train without it", "off"),), "keep the seal")

    def _ask_level(self, question: str, choices: tuple[Choice, ...], leave: str) -> None:
        def answered(answer: str | None) -> None:
            for level in LEVELS:
                if level == answer:
                    self.draft.unsealed_agreed |= level == "off"
                    self._seal(level)

        self.app.push_screen(ChoiceDialog(question, OFF_DETAIL, choices, leave=leave), answered)

    def _seal(self, level: Level) -> None:
        self.draft.overrides[SEAL] = level
        if self.step == "settings":
            self.query_one(SettingsStep).resealed()
        elif self.step == "review":
            self.query_one(ReviewStep).reseal()
        else:
            self.notify(level_words(level, self._ability), title="Seal", markup=False, timeout=6)
        self.query_one("#steps", Lines).repaint()

    @work(thread=True)
    def _try_ability(self) -> None:
        tell(self._tell_ability, self.sources.ability())

    def _tell_ability(self, ability: Ability) -> None:
        self._ability = ability
        self.query_one(SettingsStep).tell_ability(ability)
        self.query_one(ReviewStep).tell_ability(ability)

    def do_rename(self) -> None:
        self.query_one(ReviewStep).rename()

    def do_wait(self) -> None:
        self.query_one(ReviewStep).launch(wait=True)

    def do_smaller(self) -> None:
        """Back to the plan, made anew for the memory that is free now."""
        self.draft.gathered = self.draft.profile = self.draft.moved = None
        self.draft.overrides = {field: value for field, value in self.draft.overrides.items() if field not in MOVABLE}
        self._open("plan")

    def do_copy_command(self) -> None:
        self.app.copy_to_clipboard(self.draft.command_text())
        self.notify("The command is copied.", timeout=3)

    @property
    def _changing(self) -> PlanStep | SettingsStep:
        return self.query_one(PlanStep) if self.step == "plan" else self.query_one(SettingsStep)

    @property
    def _source(self) -> SourceStep:
        return self.query_one(f"#{self.step}", SourceStep)

    def _open(self, step: str) -> None:
        self.step = step
        self.query_one(ContentSwitcher).current = step
        if step in ("model", "data"):
            self._source.focus_picker()
        elif step == "plan":
            self.query_one(PlanStep).open(self.draft)
        elif step == "settings":
            self.query_one(SettingsStep).open(self.draft)
        else:
            self.query_one(ReviewStep).open(self.draft)
        self.query_one("#steps", Lines).repaint()
        self.query_one(KeyBar).repaint()

    def _steps_line(self, width: int, height: int) -> list[Text]:
        look, now = look_of(self), STEPS.index(self.step)
        line = Text.assemble(("New run", look.strong), "   ")
        for place, step in enumerate(STEPS):
            number = look.glyph("✓", "+") if place < now else str(place + 1)
            style = look.accent if place == now else look.dim
            line.append(f"{number} {step}", style=f"bold {style}" if place == now else style)
            if place < len(STEPS) - 1:
                line.append(f" {look.glyph('›', '>')} ", style=look.faint)
        chosen = [label(self.draft.model)] if self.draft.model and now else []
        chosen += [self.draft.train[0].name] if self.draft.train and now > 1 else []
        seal = [f"seal {self.draft.seal}"] if now > 1 else []
        # What was chosen where there is room for it, and the seal anyway.
        told = (look.separator.join(each) for each in (chosen + seal, seal))
        words = next((each for each in told if line.cell_len + cell_len(each) + 2 <= width), "")
        unsealed = now > 1 and self.draft.seal == "off"
        return [spread(line, Text(words, style=look.warn if unsealed else look.dim), width, look)]
