"""What the plan shows and lets a person move: ranked profiles, a cursor, and changed settings. No widgets here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiles.problem import Problem
from tui.widgets.new_run.draft import SETTINGS, Setting, Value, kept_reasons, kept_values

if TYPE_CHECKING:
    from profiles.planner import Plan, Profile
    from profiles.settings import Settings

Price = Callable[["Plan", Mapping[str, Any]], "Profile"]

# The settings that memory depends on most, and where profiles.settings.Settings keeps each.
MOVABLE = {
    "method.kind": "method",
    "method.rank": "rank",
    "method.trained_layers": "trained_layers",
    "data.sequence_length": "sequence_length",
    "train.micro_batch": "micro_batch",
    "train.gradient_checkpointing": "gradient_checkpointing",
    "optimizer.kind": "optimizer",
}
_BY_FIELD = {setting.field: setting for setting in SETTINGS}


def current_value(setting: Setting, settings: Settings) -> Value:
    """The value that `settings` has for one of the movable settings."""
    return getattr(settings, MOVABLE[setting.field])


@dataclass
class Row:
    """A profile as the plan proposes it, and as it stands with what a person changed."""

    proposed: Profile
    shown: Profile
    changes: dict[str, Value] = dataclasses.field(default_factory=dict)


class Board:
    """A plan's rows, one at least; `price` reprices one of them, which takes well under a frame."""

    def __init__(self, plan: Plan, price: Price, chosen: str | None = None, changes: Mapping[str, Value] | None = None):
        self.plan = plan
        self._price = price
        self.rows = [Row(profile, profile) for profile in plan.profiles]
        names = [row.proposed.name for row in self.rows]
        self.cursor = names.index(chosen) if chosen in names else 0
        self._field = "method.kind"
        self.refusal: Problem | None = None
        """Why one of the `changes` given could not be made, if so; the others are."""
        for field, value in (changes or {}).items():
            self.refusal = self._change(self.row, {**self.row.changes, field: value}) or self.refusal

    @property
    def row(self) -> Row:
        return self.rows[self.cursor]

    @property
    def profile(self) -> Profile:
        """The profile under the cursor, with its changes."""
        return self.row.shown

    @property
    def settings(self) -> list[Setting]:
        """What can be moved of the profile under the cursor."""
        return [_BY_FIELD[field] for field in MOVABLE if self.profile.method in _BY_FIELD[field].methods]

    @property
    def setting(self) -> Setting:
        """The one that the next move changes."""
        settings = self.settings
        return next((each for each in settings if each.field == self._field), settings[0])

    def move(self, rows: int) -> None:
        """Move the cursor by so many rows, as far as there are any."""
        self.cursor = max(0, min(len(self.rows) - 1, self.cursor + rows))

    def choose_setting(self, direction: int) -> None:
        """Go to the next setting, or the one before; both wrap around."""
        settings = self.settings
        self._field = settings[(settings.index(self.setting) + direction) % len(settings)].field

    def choose(self, setting: Setting) -> None:
        """Go to a setting of the ones there are."""
        self._field = setting.field

    def change(self, direction: int) -> Problem | None:
        """Move the chosen setting one step; the refusal where that cannot be."""
        setting, row = self.setting, self.row
        value = current_value(setting, row.shown.settings)
        moved = setting.step(value, direction)
        if moved == value:
            return None
        changes = {**row.changes, setting.field: moved}
        if moved == current_value(setting, row.proposed.settings):
            del changes[setting.field]
        return self._change(row, changes)

    def reset(self) -> None:
        """Take the profile under the cursor as it was proposed."""
        self.row.changes, self.row.shown = {}, self.row.proposed

    def _change(self, row: Row, changes: dict[str, Value]) -> Problem | None:
        """Reprice `row` with `changes`, or leave it as it is and return the refusal."""
        if not changes:
            row.changes, row.shown = {}, row.proposed
            return None
        proposed = row.proposed
        try:
            priced = self._price(self.plan, kept_values(proposed) | changes)
        except Problem as problem:
            return problem
        reasons = kept_reasons(priced.values, priced.reasons, proposed)
        row.shown = dataclasses.replace(priced, name=proposed.name, reasons=reasons)
        row.changes = changes
        return None
