"""A list of likely places under a path line: pick one, filter by a few letters, or complete a typed path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from profiles.problem import printable
from tui.telling import tell
from tui.theme import look_of
from tui.widgets.new_run.places import Kind, Place, completions, expanded, is_path_like, short_path
from tui.widgets.new_run.text import drawable


class PathLine(Input):
    """The line a path is typed into; the arrow keys move through the list below it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", "next", show=False),
        Binding("up", "move(-1)", "previous", show=False),
        Binding(
            "tab",
            "complete",
            "complete",
            id="picker.complete",
            tooltip="Complete the path that is being typed",
        ),
    ]

    def __init__(self, id: str):
        super().__init__(placeholder="/ to type a path or a few letters", compact=True, select_on_focus=False, id=id)
        self.cursor_blink = False  # a blinking cursor writes 2 KB/s over SSH while nobody types

    @property
    def picker(self) -> PathPicker:
        assert isinstance(self.parent, PathPicker)
        return self.parent

    def action_move(self, rows: int) -> None:
        self.picker.move(rows)

    def action_complete(self) -> None:
        self.picker.complete()

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape":  # backs out to the list; from there it backs out of the step
            event.stop()
            self.picker.leave_line()


class PlaceList(OptionList):
    """The places; `j`, `k`, `g` and `G` move as well, and a key that begins a path goes to the path line."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "down", show=False),
        Binding("k", "cursor_up", "up", show=False),
        Binding("g", "first", "top", show=False),
        Binding("G", "last", "bottom", show=False),
        Binding(
            "slash",
            "type('')",
            "path",
            id="picker.type",
            tooltip="Type a path, or a few letters to filter by",
        ),
        Binding("tilde", "type('~/')", "home", show=False),
        Binding("full_stop", "type('./')", "here", show=False),
    ]

    def action_type(self, begun: str) -> None:
        assert isinstance(self.parent, PathPicker)
        self.parent.enter_line(begun)


class PathPicker(Vertical):
    """Posts `Highlighted` as the cursor moves, `Chosen` on Enter. Reads folders in threads, latest wins."""

    DEFAULT_CSS = """
    PathPicker { height: 1fr; }
    PathPicker PathLine { margin-bottom: 1; background: transparent; }
    PathPicker PathLine:focus { background-tint: transparent; }
    PathPicker PlaceList {
        height: 1fr; border: none; padding: 0; background: transparent; scrollbar-size-vertical: 0;
        text-wrap: nowrap; text-overflow: ellipsis;
    }
    .-ascii PlaceList { text-overflow: clip; }
    PathPicker PlaceList:focus { border: none; background-tint: transparent; }
    PathPicker PlaceList > .option-list--option { padding: 0; }
    PathPicker PlaceList > .option-list--option-disabled { color: $foreground; }
    PathPicker PlaceList > .option-list--option-highlighted { background: $panel; }
    PathPicker PlaceList:focus > .option-list--option-highlighted {
        color: $block-cursor-foreground; background: $block-cursor-background; text-style: bold;
    }
    PathPicker PlaceList:ansi > .option-list--option-highlighted,
    PathPicker PlaceList:ansi:focus > .option-list--option-highlighted {
        color: ansi_default; background: ansi_default; text-style: reverse;
    }
    """

    @dataclass
    class Highlighted(Message):
        picker: PathPicker
        path: Path | None

    @dataclass
    class Chosen(Message):
        picker: PathPicker
        path: Path

    def __init__(self, kind: Kind, id: str | None = None):
        super().__init__(id=id)
        self.kind = kind
        self._places: Sequence[Place] | None = None
        self._shown: list[Place] = []
        self._rows: list[Place | None] = []
        self._marks: Mapping[Path, str] = {}
        self._listed: str | None = None
        """What was typed when the list was made; None before the first one."""
        self._then: tuple[str, Callable[[], None]] | None = None
        """A key that waits for the list of what is typed: that text, and what the key does."""

    def compose(self) -> ComposeResult:
        yield PathLine(id=f"{self.kind}-path")
        yield PlaceList(id=f"{self.kind}-places")

    @property
    def line(self) -> PathLine:
        return self.query_one(PathLine)

    @property
    def place_list(self) -> PlaceList:
        return self.query_one(PlaceList)

    @property
    def highlighted(self) -> Place | None:
        row = self.place_list.highlighted
        return self._rows[row] if row is not None and row < len(self._rows) else None

    def offer(self, places: Sequence[Place]) -> None:
        """Show the places that were found; what was typed meanwhile still filters them."""
        self._places = places
        self._refill(self.line.value)

    def mark(self, marks: Mapping[Path, str]) -> None:
        """Write a word behind some of the places (what a file is used for)."""
        self._marks = marks
        for row, place in enumerate(self._rows):
            if place is not None:
                self.place_list.replace_option_prompt_at_index(row, self._prompt(place))

    def focus_list(self) -> None:
        self.place_list.focus()

    def enter_line(self, begun: str) -> None:
        self.line.value = begun
        self.line.cursor_position = len(begun)
        self.screen.set_focus(self.line)

    def leave_line(self) -> None:
        self.line.value, self._then = "", None
        self.place_list.focus()

    def move(self, rows: int) -> None:
        self.place_list.action_cursor_down() if rows > 0 else self.place_list.action_cursor_up()

    def complete(self) -> None:
        """Extend the typed path by what its completions share, or else to the highlighted one."""
        self._when_listed(self._complete)

    def _complete(self) -> None:
        found = [place for place in self._shown if place.label != "this folder"]
        if not found:
            return
        typed = str(expanded(self.line.value or ".").absolute())
        shared = _shared_beginning([str(place.path) for place in found])
        target = self.highlighted or found[0]
        if len(shared) <= len(typed) or not is_path_like(self.line.value):
            shared = str(target.path)
        folder = any(str(place.path) == shared and place.label.endswith("/") for place in found)
        self.enter_line(short_path(Path(shared)) + ("/" if folder else ""))

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._refill(event.value)

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self._when_listed(self._take_typed)

    def _take_typed(self) -> None:
        place, typed = self.highlighted, self.line.value.strip()
        if place is not None:
            self._choose(place)
        elif typed:
            self.post_message(self.Chosen(self, expanded(typed).absolute()))

    def _when_listed(self, act: Callable[[], None]) -> None:
        """Do `act` with the list of what is typed: folders are read in a thread, and keys may come before it."""
        typed = self.line.value.strip()
        if self._listed == typed:
            act()
        else:
            self._then = typed, act

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option not in self.place_list.options:
            return  # the list was made anew meanwhile
        place = self._rows[event.option_index]
        if place is not None:
            self._choose(place)

    @on(OptionList.OptionHighlighted)
    def _moved(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self._tell_highlight()

    def _choose(self, place: Place) -> None:
        if place.choosable:
            self.post_message(self.Chosen(self, place.path))
        else:  # a folder on the way
            self.enter_line(short_path(place.path) + "/")

    def _tell_highlight(self) -> None:
        place = self.highlighted
        self.post_message(self.Highlighted(self, place.path if place and place.choosable else None))

    def _refill(self, typed: str) -> None:
        typed = typed.strip()
        if self._then is not None and self._then[0] != self.line.value.strip():
            self._then = None  # more was typed
        known = [] if self._places is None else [place for place in self._places if _matches(place, typed)]
        if is_path_like(typed):
            self._complete_typed(typed, known)
        else:
            self.workers.cancel_group(self, "completions")
            self._show(known, typed if self._places is not None else None)

    @work(thread=True, exclusive=True, group="completions")
    def _complete_typed(self, typed: str, known: Sequence[Place]) -> None:
        found = completions(typed, self.kind)
        there = {place.path for place in found}
        tell(self._show, found + [each for each in known if each.path not in there], typed)

    def _show(self, places: Sequence[Place], listed: str | None) -> None:
        before, look = self.highlighted, look_of(self)
        self._listed = listed
        self._shown = list(places)
        self._rows, options = [], []
        group = None
        for place in places:
            if place.group != group:
                group = place.group
                self._rows.append(None)
                options.append(Option(Text(drawable(printable(group), look), style=look.dim), disabled=True))
            self._rows.append(place)
            options.append(Option(self._prompt(place)))
        if self._places is not None and not places:
            options.append(Option(Text("nothing here; Enter tries the path", style=look.dim), disabled=True))
            self._rows.append(None)
        self.place_list.clear_options()
        self.place_list.add_options(options)
        row = self._rows.index(before) if before is not None and before in self._rows else _first(self._rows)
        self.place_list.highlighted = row
        if row is None:
            self._tell_highlight()
        if self._then is not None and self._then[0] == listed:
            (_, act), self._then = self._then, None
            act()

    def _prompt(self, place: Place) -> Text:
        look = look_of(self)
        mark = self._marks.get(place.path)
        tail = (f"  {mark}", look.accent) if mark else ("" if place.choosable else f" {look.glyph('›', '>')}", look.dim)
        return Text.assemble("  ", drawable(printable(place.label), look), tail, no_wrap=True, overflow="ellipsis")


def _matches(place: Place, typed: str) -> bool:
    names = f"{place.label} {place.path}".casefold()
    return all(part in names for part in typed.casefold().split())


def _shared_beginning(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    differ = next((at for at, letter in enumerate(first) if letter != last[at : at + 1]), len(first))
    return first[:differ]


def _first(rows: Sequence[Place | None]) -> int | None:
    return next((row for row, place in enumerate(rows) if place is not None), None)
