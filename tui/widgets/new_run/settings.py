"""The settings step: each setting with its value and its reason, changed in place and priced at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, Static

from profiles.problem import Problem
from tui.seal_words import level_line
from tui.telling import tell
from tui.theme import Look, look_of
from tui.widgets.new_run.draft import SEAL, SETTINGS, Draft, Setting, Value, check
from tui.widgets.new_run.memory import MemoryForecast
from tui.widgets.new_run.text import cut, drawable, problem_line, problem_text
from tui.widgets.painted import Painted

if TYPE_CHECKING:
    from engine.propose import Proposal
    from engine.seal.ability import Ability

LABEL_COLUMN, LABEL_WIDTH, VALUE_WIDTH, REASON_COLUMN = 3, 16, 10, 38
USUAL_ROWS = 14
"""Settings that mean something at once: all of them for adapters without recomputing."""
# A held arrow key changes the value many times a second; only where it comes to rest is worth pricing.
REST_SECONDS = 0.12


class SettingsTable(Painted, can_focus=True):
    """The settings as rows; the cursor's row is the one that keys change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "down", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("g,home", "move(-99)", "top", show=False),
        Binding("G,end", "move(99)", "bottom", show=False),
    ]

    DEFAULT_CSS = f"SettingsTable {{ height: {USUAL_ROWS}; max-height: 1fr; }}"

    class Moved(Message):
        """The cursor stands on another row."""

    def __init__(self) -> None:
        super().__init__(id="settings")
        self.row = 0
        self.step: SettingsStep | None = None

    @property
    def settings(self) -> list[Setting]:
        """The settings that mean something for what is proposed: no rank where every weight learns."""
        proposal = self.step.proposal if self.step is not None else None
        return [setting for setting in SETTINGS if proposal is None or setting.applies(proposal.spec)]

    @property
    def setting(self) -> Setting:
        return self.settings[min(self.row, len(self.settings) - 1)]

    @property
    def first_row(self) -> int:
        """The row at the top: nearly all fit at 80x24; in a smaller terminal the cursor stays in view."""
        return max(0, min(self.row - self.size.height // 2, len(self.settings) - self.size.height))

    def stand_on(self, setting: Setting) -> None:
        """Keep the cursor on `setting`, where that is still among them."""
        settings = self.settings
        if setting in settings:
            self.row = settings.index(setting)

    def action_move(self, rows: int) -> None:
        self.row = min(max(0, self.row + rows), len(self.settings) - 1)
        self.repaint()
        self.post_message(self.Moved())

    def on_key(self, event: events.Key) -> None:
        typed = event.character or ""
        if typed.isdigit() and self.step is not None and self.screen.focused is self:  # no value is open yet
            event.stop()
            self.step.type_over(typed)

    def paint(self, width: int, height: int) -> list[Text]:
        if self.step is None or self.step.proposal is None:
            return []
        lines = [self._line(setting, width) for setting in self.settings]
        self.row = min(self.row, len(lines) - 1)
        cursor = lines[self.row]
        cursor.pad_right(width - cursor.cell_len)
        cursor.stylize_before(self.look.selected)
        if self.look.colored:
            cursor.stylize(self.look.accent, LABEL_COLUMN, LABEL_COLUMN + LABEL_WIDTH)
        return lines[self.first_row : self.first_row + height]

    def _line(self, setting: Setting, width: int) -> Text:
        step, look = self.step, self.look
        assert step is not None and step.proposal is not None
        changed = setting.field in step.draft.overrides
        value = setting.show(step.value(setting))
        line = Text(no_wrap=True)
        line.append(f" {'*' if changed else ' '} ", look.accent)
        line.append(f"{setting.label:<{LABEL_WIDTH}}", look.dim)
        line.append(f"{value:>{VALUE_WIDTH}}", look.accent if changed else look.strong)
        unit = setting.unit if value[0].isdigit() else ""
        line.append(f" {unit}", look.dim)
        line.pad_right(REASON_COLUMN - line.cell_len)
        room = width - REASON_COLUMN - 1
        return line.append(cut(step.reason(setting, room), room, look) if room > 8 else "", look.dim)


class SettingsStep(Vertical):
    """Posts `Done` with a proposal in the draft. Prices in threads; the latest change wins."""

    DEFAULT_CSS = """
    SettingsStep { height: 1fr; }
    SettingsStep #why { height: auto; min-height: 2; max-height: 3; margin: 1 0 0 0; padding: 0 3; }
    SettingsStep #edit {
        position: absolute; display: none; width: 15; background: $panel; padding: 0 1;
    }
    SettingsStep #edit:ansi { text-style: reverse; }
    SettingsStep MemoryForecast { margin-top: 1; padding: 0 3; }
    SettingsStep.-tight MemoryForecast { margin-top: 0; }
    SettingsStep.-low MemoryForecast { height: 2; margin-top: 0; }
    SettingsStep.-low #why { margin-top: 0; min-height: 1; max-height: 1; }
    """

    class Done(Message):
        """A person is content with the settings."""

    class Changed(Message):
        """A person has set a value, or taken one back."""

    class Unsealing(Message):
        """A person is about to do without the seal, and was not asked yet."""

    def __init__(self, propose: Callable[[Draft], Proposal], id: str):
        super().__init__(id=id)
        self._propose = propose
        self.draft = Draft()
        self.proposal: Proposal | None = None
        self._untouched: Proposal | None = None
        self._accepted: dict[str, Value] = {}
        self._problem: Problem | None = None
        self._going = False
        self._pricing = False
        self._rest: Timer | None = None
        self._ability: Ability | None = None

    def compose(self) -> ComposeResult:
        yield SettingsTable()
        yield Static(id="why")
        yield MemoryForecast(label_width=9)
        edit = Input(id="edit", compact=True, select_on_focus=False)
        edit.cursor_blink = False
        yield edit

    @property
    def look(self) -> Look:
        return look_of(self)

    @property
    def table(self) -> SettingsTable:
        return self.query_one(SettingsTable)

    @property
    def edit(self) -> Input:
        return self.query_one("#edit", Input)

    def on_mount(self) -> None:
        self.table.step = self

    def on_resize(self) -> None:
        self.set_class(self.size.height < USUAL_ROWS + 8, "-tight")
        self.set_class(self.size.height < USUAL_ROWS + 7, "-low")

    def open(self, draft: Draft) -> None:
        """Show proposed settings for the model and data in `draft`; what was changed before is kept."""
        self.draft, self.proposal, self._untouched, self._problem = draft, None, None, None
        self._accepted, self._going = {}, False
        self.table.focus()
        self._price()

    def tell_ability(self, ability: Ability) -> None:
        """What this machine can hold of a seal is known."""
        self._ability = ability
        if self.proposal is not None:
            self._refresh()

    def resealed(self) -> None:
        """The draft has another seal: show and price it."""
        self._changed()

    def value(self, setting: Setting) -> Value:
        """The value that stands in the table: a person's own, or the proposed one."""
        assert self.proposal is not None
        return self.draft.overrides.get(setting.field, setting.value(self.proposal.spec))

    def reason(self, setting: Setting, room: int = 1000) -> str:
        """Why the value is what it is; what means the same in fewer words where there is little `room`."""
        assert self.proposal is not None
        if setting.field == SEAL:
            said = f"{self.value(setting)}: "
            return level_line(str(self.value(setting)), self._ability, room + len(said)).removeprefix(said)
        if setting.field not in self.draft.overrides:
            return self.proposal.reasons.get(setting.field, setting.meaning)
        assert self._untouched is not None, "set with every proposal"
        return f"your choice; proposed was {setting.show(setting.value(self._untouched.spec))}"

    def next(self) -> None:
        """Go on; with a price still being found, go on when it is."""
        if self._pricing:
            self._going = True
        elif self.proposal is not None and self.proposal is self.draft.proposal:
            self.post_message(self.Done())

    def change(self, direction: int) -> None:
        """Take the next value up or down."""
        if self.proposal is not None:
            setting = self.table.setting
            self._set(setting, setting.step(self.value(setting), direction))

    def reset(self) -> None:
        """Go back to the proposed value."""
        if self.draft.overrides.pop(self.table.setting.field, None) is not None:
            self._changed()

    def start_edit(self, text: str | None = None) -> None:
        """Open the value under the cursor for typing, with `text` in its place."""
        if self.proposal is None:
            return
        table, setting = self.table, self.table.setting
        self._problem = None
        edit = self.edit
        edit.value = setting.show(self.value(setting)) if text is None else text
        edit.cursor_position = len(edit.value)
        edit.styles.offset = (LABEL_COLUMN + LABEL_WIDTH - 1, table.row - table.first_row)
        edit.display = True
        self.screen.set_focus(edit)
        self._explain()

    def type_over(self, digit: str) -> None:
        """Open the value under the cursor, where it is a number, for typing with `digit` in its place."""
        if not isinstance(self.table.setting.ladder[0], str | bool):
            self.start_edit(digit)

    def stop_edit(self) -> bool:
        """Close the value that is open for typing; False when none is."""
        if not self.edit.display:
            return False
        self.edit.display = False
        self._problem = None
        self.table.focus()
        self._explain()
        return True

    @on(SettingsTable.Moved)
    def _moved(self, event: SettingsTable.Moved) -> None:
        event.stop()
        self._problem = None
        self._explain()

    @on(Input.Submitted, "#edit")
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        setting = self.table.setting
        try:
            value = setting.parse(event.value)
        except Problem as problem:
            self._refuse(problem)
            return
        if self._set(setting, value):
            self.stop_edit()

    def _set(self, setting: Setting, value: Value) -> bool:
        assert self.proposal is not None
        try:
            check(self.proposal.spec, setting, value)
        except Problem as problem:
            self._refuse(problem)
            return False
        if value == self.value(setting):
            return True
        if (setting.field, value) == (SEAL, "off") and not self.draft.unsealed_agreed:
            self.post_message(self.Unsealing())
            return True
        if self._untouched is not None and value == setting.value(self._untouched.spec):
            self.draft.overrides.pop(setting.field, None)
        else:
            self.draft.overrides[setting.field] = value
        self._changed()
        return True

    def _refuse(self, problem: Problem) -> None:
        self._problem = problem
        self._explain()

    def _changed(self) -> None:
        self.post_message(self.Changed())
        self._problem = None
        self._pricing = True
        self._refresh()
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(REST_SECONDS, self._price)

    def _price(self) -> None:
        self._pricing = True
        self._refresh()
        self._price_in_thread(replace(self.draft, overrides=dict(self.draft.overrides)))

    @work(thread=True, exclusive=True, group="price")
    def _price_in_thread(self, draft: Draft) -> None:
        found: Proposal | Problem
        untouched = self._untouched
        try:
            found = self._propose(draft)
            if untouched is None:  # what would be proposed without the changes, to tell and to go back to
                untouched = self._propose(replace(draft, overrides={})) if draft.overrides else found
        except Problem as problem:
            found = problem
        tell(self._priced, draft, found, untouched)

    def _priced(self, asked: Draft, found: Proposal | Problem, untouched: Proposal | None) -> None:
        if asked.overrides != self.draft.overrides:
            return  # another change was made meanwhile and is being priced
        self._pricing, self._untouched = False, untouched
        if isinstance(found, Problem):
            self._price_refused(found)
        else:
            stood_on = self.table.setting if self.proposal is not None else None
            self.proposal = self.draft.proposal = found
            self._accepted = asked.overrides
            if stood_on is not None:  # the cursor may have gone on while another method was priced
                self.table.stand_on(stood_on)
        self._refresh()
        if self._going and not isinstance(found, Problem):
            self.post_message(self.Done())
        self._going = False

    def _price_refused(self, problem: Problem) -> None:
        """Say why, and take back what was changed since the last proposal that could be made."""
        self._problem = problem
        if self.draft.overrides != self._accepted:
            self.draft.overrides.clear()
            self.draft.overrides.update(self._accepted)
            if self.proposal is None:
                self._price()

    def _refresh(self) -> None:
        self.table.styles.height = len(self.table.settings)
        self.table.repaint()
        self.query_one(MemoryForecast).show(self.proposal, pricing=self._pricing)
        self._explain()

    def _explain(self) -> None:
        why, look = self.query_one("#why", Static), self.look
        if self._problem is not None:
            show = problem_line if self.proposal is not None else problem_text
            why.update(show(self._problem, look))
        elif self.proposal is None:
            why.update(Text(f"working out what fits {look.ellipsis}", style=look.dim))
        else:
            setting = self.table.setting
            meaning = drawable(f"{setting.label}: {setting.meaning}", look)
            lines = [Text(meaning, style=look.dim)]
            if (reason := self.reason(setting)) != setting.meaning:
                lines.append(Text(drawable(reason, look)))
            why.update(Text("\n").join(lines))
