"""The keys of each screen: one table that makes the bindings, the footer, the help and the palette.

A key that cannot be used now stays where it is, dimmed, and says why when it is pressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from textual.binding import Binding, BindingType
from textual.screen import Screen

from tui.theme import Look, look_of

if TYPE_CHECKING:
    from engine.run.directory import RunDirectory
    from tui.app import FinetuiApp
    from tui.snapshots import RunSnapshot

DISPLAY = {
    "escape": "esc",
    "question_mark": "?",
    "slash": "/",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "pagedown": "pgdn",
    "pageup": "pgup",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One thing a person can do on a screen. `keys` are Textual's key names, the first is the one shown."""

    keys: str
    name: str
    """The screen's method is do_<name>."""
    label: str
    """One or two words for the footer."""
    help: str
    """One sentence for help and palette."""
    footer: bool = True
    palette: bool = True
    spare: bool = False
    """In the footer only where those that are not have room beside it."""
    sign: str = ""
    """What the footer shows instead of the first key, where one entry stands for two keys: "< >"."""

    @property
    def shown(self) -> str:
        """The first key as a person would write it: "enter", "?", "ctrl+p", "G"."""
        return self.sign or DISPLAY.get(first := self.keys.split(",")[0], first)

    @property
    def all_shown(self) -> str:
        """All its keys as a person would write them."""
        return " ".join(DISPLAY.get(key, key) for key in self.keys.split(","))


APP_KEYS = (
    Key("question_mark", "help", "help", "Show what every key does."),
    Key("ctrl+p", "palette", "palette", "Search all commands by name.", footer=False, palette=False),
    Key("ctrl+l", "redraw", "redraw", "Draw the whole screen again.", footer=False),
    Key("ctrl+z", "suspend", "suspend", "Go to the shell; `fg` comes back.", footer=False, palette=False),
    Key("q", "quit", "quit", "Leave the app. Runs go on without it."),
)


def _bindings(keys: Sequence[Key]) -> list[BindingType]:
    return [
        Binding(key.keys, f"screen.key('{key.name}')", key.label, show=False, tooltip=key.help, id=None) for key in keys
    ]


class KeyedScreen(Screen):
    """A screen whose keys come from KEYS and APP_KEYS.

    Each key calls `do_<name>`, on the screen or else on the app, unless `why_not(name)` gives a reason.
    """

    KEYS: tuple[Key, ...] = ()
    TITLE_WORD = ""
    """What help calls this screen."""

    def __init_subclass__(cls, **options: Any) -> None:
        cls.BINDINGS = [*_bindings(cls.KEYS), *cls.__dict__.get("BINDINGS", ())]
        super().__init_subclass__(**options)

    @property
    def finetui(self) -> FinetuiApp:
        """The app by its own type."""
        return cast("FinetuiApp", self.app)

    @property
    def look(self) -> Look:
        return look_of(self)

    @property
    def all_keys(self) -> tuple[Key, ...]:
        return (*self.KEYS, *APP_KEYS)

    def why_not(self, name: str) -> str | None:
        """Why the key called `name` cannot be used now, in a few words; None when it can."""
        return None

    async def action_key(self, name: str) -> None:
        """Do what the key called `name` does, or say why not."""
        if reason := self.why_not(name):
            key = next(key for key in (*self.all_keys, *self.KEYS, *APP_KEYS) if key.name == name)
            self.notify(f"{key.shown} {key.label}: {reason}", severity="warning", timeout=4)
            return
        target = getattr(self, f"do_{name}", None) or getattr(self.app, f"do_{name}")
        result = target()
        if hasattr(result, "__await__"):
            await result


class RunScreen(KeyedScreen):
    """A screen about one run; it is given that run's snapshots while it or a dialog above it is shown."""

    run: RunDirectory

    def show_run(self, snapshot: RunSnapshot) -> None:
        raise NotImplementedError


def app_bindings() -> list[BindingType]:
    """The bindings of APP_KEYS, for the app's own BINDINGS."""
    return [
        Binding(
            key.keys,
            f"app.key('{key.name}')",
            key.label,
            show=False,
            tooltip=key.help,
            priority=key.name == "palette",
        )
        for key in APP_KEYS
    ]
