"""How finetui looks: one theme with one accent colour, and the styles and glyphs that every widget draws with.

Nothing is told by colour alone: without colours (NO_COLOR) or without Unicode (--ascii) the same `Look` holds bold,
dim and reverse, and plain ASCII glyphs. Widgets ask `look_of(self)` and never name a colour themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from textual.theme import Theme

if TYPE_CHECKING:
    from textual.widget import Widget

    from engine.run.summary import RunStateName
    from tui.terminal import Terminal

ACCENT = "#5ec4b6"

THEME = Theme(
    name="finetui",
    primary=ACCENT,
    secondary="#4c7fb0",
    accent=ACCENT,
    foreground="#c9d1d9",
    background="#10141a",
    surface="#151b23",
    panel="#1b222c",
    success="#8fbf7f",
    warning="#d9a45b",
    error="#e5706b",
    dark=True,
    variables={
        "border": "#39424e",
        "border-blurred": "#2a323c",
        "input-cursor-background": ACCENT,
        "input-cursor-foreground": "#10141a",
        "block-cursor-background": "#22303a",
        "block-cursor-foreground": "#e6edf3",
        "block-cursor-text-style": "none",
        "footer-key-foreground": ACCENT,
        "scrollbar": "#2a323c",
        "scrollbar-background": "#10141a",
        "scrollbar-corner-color": "#10141a",
    },
)
NO_COLOR_THEME = "ansi-dark"


@dataclass(frozen=True, slots=True)
class Look:
    """Rich style strings by what they mean, and the glyphs that go with them."""

    ascii: bool
    colored: bool
    strong: str
    dim: str
    faint: str
    """Structure: rules, axes, empty parts of bars."""
    trace: str
    """Raw values behind a smoothed line."""
    accent: str
    good: str
    warn: str
    bad: str
    selected: str
    """The row under the cursor; a background, so it is combined with the others."""
    components: Mapping[str, str]
    """Foreground of each memory component, of "others" and of "free"."""

    def glyph(self, unicode: str, plain: str) -> str:
        """`unicode`, or `plain` where only ASCII can be drawn."""
        return plain if self.ascii else unicode

    @property
    def separator(self) -> str:
        return self.glyph(" · ", " - ")

    @property
    def ellipsis(self) -> str:
        return self.glyph("…", "~")

    @property
    def degree(self) -> str:
        return self.glyph(" °C", " C")

    def state(self, state: RunStateName) -> tuple[str, str]:
        """The glyph and the style of a run's state word."""
        # Here, since a run that has a state was read by that module already; at start it would cost time.
        from engine.run.summary import ASCII_STATE_GLYPHS, STATE_GLYPHS

        styles = {
            "running": self.accent,
            "preparing": self.accent,
            "queued": self.warn,
            "finished": self.good,
            "stopped": self.dim,
            "failed": self.bad,
        }
        return (ASCII_STATE_GLYPHS if self.ascii else STATE_GLYPHS)[state], styles[state]


_COLORED = {
    "strong": "bold #e6edf3",
    "dim": "#828d9a",
    "faint": "#39424e",
    "trace": "#4d5967",
    "accent": ACCENT,
    "good": "#8fbf7f",
    "warn": "#d9a45b",
    "bad": "#e5706b",
    "selected": "on #1d2833",
}
_COLORED_COMPONENTS = {
    "weights": "#4c7fb0",
    "adapters": ACCENT,
    "gradients": "#8fbf7f",
    "optimizer": "#cdb65a",
    "activations": "#d08c54",
    "loss": "#b8688f",
    "context": "#7d72b3",
    "used": "#4c7fb0",
    "ours": ACCENT,
    "others": "#68727e",
    "free": "#2a323c",
}
_PLAIN = {
    "strong": "bold",
    "dim": "dim",
    "faint": "dim",
    "trace": "dim",
    "accent": "bold",
    "good": "",
    "warn": "bold",
    "bad": "bold",
    "selected": "reverse",
}


def make_look(ascii: bool = False, no_color: bool = False) -> Look:
    """The look for a terminal that can or cannot show Unicode and colours."""
    components = {name: "" if no_color else style for name, style in _COLORED_COMPONENTS.items()}
    if no_color:
        components["free"] = "dim"
    styles = _PLAIN if no_color else _COLORED
    return Look(ascii=ascii, colored=not no_color, components=MappingProxyType(components), **styles)


DEFAULT_LOOK = make_look()


def look_for(terminal: Terminal) -> Look:
    return make_look(ascii=terminal.ascii, no_color=terminal.no_color)


def look_of(widget: Widget) -> Look:
    """The look of the app that `widget` is in; the default one in an app that has none."""
    return getattr(widget.app, "look", DEFAULT_LOOK)
