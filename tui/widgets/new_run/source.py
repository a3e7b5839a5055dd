"""What the model and the data step share: a picker, and beside it what the highlighted place is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from profiles.problem import Problem, printable
from tui.telling import tell
from tui.theme import Look, look_of
from tui.widgets.new_run.places import Kind, Place, short_path
from tui.widgets.new_run.text import drawable, path_lines, problem_text
from tui.widgets.path_picker import PathPicker

# A cursor that is moving through the list should not start an inspection at every row it passes.
REST_SECONDS = 0.08


class Details(Static):
    """What is told beside the list. Posts `Widened` when there is another width to tell it in."""

    class Widened(Message):
        pass

    _width = 0

    def on_resize(self) -> None:
        if self.size.width != self._width:
            self._width = self.size.width
            self.post_message(self.Widened())


class SourceStep(Horizontal):
    """Posts `Done` when a usable place was chosen; an unusable one is told of beside the list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup,ctrl+u", "scroll_details(-1)", "details up", show=False),
        Binding("pagedown,ctrl+d", "scroll_details(1)", "details down", show=False),
    ]

    DEFAULT_CSS = """
    SourceStep { height: 1fr; }
    SourceStep PathPicker { width: 36; padding: 0 1 0 1; }
    SourceStep .details { padding: 0 1 0 2; scrollbar-size-vertical: 0; }
    SourceStep .details Static { height: auto; }
    SourceStep.-wide PathPicker { width: 60; }
    """

    @dataclass
    class Done(Message):
        step: SourceStep
        path: Path

    kind: ClassVar[Kind]

    def __init__(self, find_places: Callable[[], Sequence[Place]], look: Callable[[Path], Any], id: str):
        super().__init__(id=id)
        self._find_places, self._look = find_places, look
        self._seen: dict[Path, Any] = {}
        self._highlighted: Path | None = None
        self._going: Path | None = None
        self._rest: Timer | None = None

    def compose(self) -> ComposeResult:
        yield PathPicker(self.kind)
        with VerticalScroll(classes="details", can_focus=False):
            yield Details(id=f"{self.kind}-details")

    def describe(self, found: Any, width: int) -> Text:
        """What a usable place is, at most `width` columns wide."""
        raise NotImplementedError

    def refusal(self, found: Any) -> Problem | None:
        """Why a place that could be read cannot be used, if so."""
        raise NotImplementedError

    @property
    def look(self) -> Look:
        return look_of(self)

    @property
    def picker(self) -> PathPicker:
        return self.query_one(PathPicker)

    def found(self, path: Path) -> Any:
        """What was found out about `path`: a report, a Problem, or None when nothing is known yet."""
        return self._seen.get(path)

    def on_mount(self) -> None:
        self.say("looking for models" if self.kind == "model" else "looking for data files")
        self._fill()

    def on_resize(self) -> None:
        self.set_class(self.size.width >= 120, "-wide")

    @on(Details.Widened)
    def _tell_anew(self, event: Details.Widened) -> None:
        event.stop()
        self._show()

    def focus_picker(self) -> None:
        self.picker.focus_list()

    def say(self, words: str) -> None:
        self._details.update(Text(drawable(f"{words} …", self.look), style=self.look.dim))

    def action_scroll_details(self, direction: int) -> None:
        details = self.query_one(VerticalScroll)
        details.scroll_relative(y=direction * max(1, details.size.height - 2), animate=False)

    @property
    def _details(self) -> Details:
        return self.query_one(Details)

    @work(thread=True, group="places")
    def _fill(self) -> None:
        tell(self._offer, self._find_places())

    def _offer(self, places: Sequence[Place]) -> None:
        self.picker.offer(places)

    @on(PathPicker.Highlighted)
    def _highlight(self, event: PathPicker.Highlighted) -> None:
        event.stop()
        self._highlighted = event.path
        if event.path != self._going:
            self._going = None
        if self._rest is not None:
            self._rest.stop()
        if event.path is None or event.path in self._seen:
            self._show()
        else:
            self._rest = self.set_timer(REST_SECONDS, lambda: self._inspect(event.path))

    @on(PathPicker.Chosen)
    def _choose(self, event: PathPicker.Chosen) -> None:
        event.stop()
        if self._rest is not None:
            self._rest.stop()
        self._highlighted = self._going = event.path
        found = self._seen.get(event.path)
        if found is not None and self._refused(found) is None:
            self._go()
        else:  # not looked at yet, or refused before: look (again), since the person may have mended it
            self._inspect(event.path)

    def _inspect(self, path: Path) -> None:
        self.say(f"reading {printable(short_path(path), 200)}")
        self._inspect_in_thread(path)

    @work(thread=True, exclusive=True, group="inspect")
    def _inspect_in_thread(self, path: Path) -> None:
        try:
            found = self._look(path)
        except Problem as problem:
            found = problem
        tell(self._inspected, path, found)

    def _inspected(self, path: Path, found: Any) -> None:
        self._seen[path] = found
        self._show()
        if self._going == path:
            if self._refused(found) is None:
                self._go()
            self._going = None

    def _go(self) -> None:
        assert self._going is not None
        self.post_message(self.Done(self, self._going))
        self._going = None

    def _refused(self, found: Any) -> Problem | None:
        return found if isinstance(found, Problem) else self.refusal(found)

    def _show(self) -> None:
        path = self._highlighted
        found = None if path is None else self._seen.get(path)
        if path is None and self.picker.highlighted is not None:
            self._details.update(Text("a folder on the way; Enter opens it", style=self.look.dim))
        elif path is None:
            self._details.update(Text(drawable(self.empty_words, self.look), style=self.look.dim))
        elif isinstance(found, Problem):
            self._details.update(self._headed(path, problem_text(found, self.look)))
        elif found is not None:
            self._details.update(self._headed(path, self.describe(found, self._room)))

    @property
    def empty_words(self) -> str:
        """What stands beside the list while no usable place is highlighted."""
        raise NotImplementedError

    def _headed(self, path: Path, body: Text) -> Text:
        shown = drawable(printable(short_path(path), 400), self.look)
        return Text.assemble(("\n".join(path_lines(shown, self._room)), self.look.strong), "\n\n", body)

    @property
    def _room(self) -> int:
        return self._details.size.width or 40
