"""Purge: what removing a run takes away and what remains, and a word to type before anything is removed."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Input, Static

from profiles.problem import Problem, printable
from tui.format import bytes_text
from tui.purge_words import going_lines, remaining_lines
from tui.telling import tell
from tui.theme import look_of
from tui.widgets.dialog import Dialog
from tui.widgets.lines import Lines
from tui.widgets.new_run.text import drawable

if TYPE_CHECKING:
    from engine.run.directory import RunDirectory
    from engine.run.evidence.purging import PurgePlan

WORD = "purge"
"""A key that was meant for something else removes nothing: this is typed out."""
ROWS_BESIDE = 12
"""What border, padding, question, input and keys take of the screen."""


class PurgeDialog(Dialog["PurgePlan | None"]):
    """Returns the plan that a person agreed to, or None for Esc. Removes nothing itself."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "dismiss(None)"),
        ("down", "scroll(1)"),
        ("up", "scroll(-1)"),
        ("pagedown", "scroll(8)"),
        ("pageup", "scroll(-8)"),
    ]
    CSS = """
    PurgeDialog .dialog { width: 78; }
    PurgeDialog VerticalScroll { height: auto; margin: 1 0; scrollbar-size-vertical: 1; }
    PurgeDialog Input { margin-bottom: 1; }
    PurgeDialog #purge-keys { padding: 0; }
    """

    def __init__(self, run: RunDirectory, run_name: str):
        super().__init__()
        self._purged, self._run_name = run, run_name
        self._found: PurgePlan | Problem | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(f"Remove {printable(self._run_name, 60)}?", markup=False, classes="dialog-question")
            with VerticalScroll(can_focus=False):
                yield Static(id="purge-plan", markup=False)
            yield Input(placeholder=f"type {WORD}, then Enter", id="purge-word", compact=True)
            yield Lines(self._paint_keys, id="purge-keys")

    def on_mount(self) -> None:
        word = self.query_one(Input)
        word.cursor_blink = False
        word.display = False
        # Only a layout tells whether there is more than fits.
        self.watch(self.query_one(VerticalScroll), "show_vertical_scrollbar", self._repaint_keys, init=False)
        self._show()
        self.run_worker(self._look, thread=True)

    def _look(self) -> None:
        """In a thread: the whole folder is gone through, and the caches with what other runs use of them."""
        from engine.run.evidence.purging import plan_purge

        found: PurgePlan | Problem
        try:
            found = plan_purge(self._purged)
        except Problem as problem:
            found = problem
        tell(self._tell, found)

    def _tell(self, found: PurgePlan | Problem) -> None:
        self._found = found
        if not isinstance(found, Problem):
            word = self.query_one(Input)
            word.display = True
            word.focus()
        self._show()

    def _show(self) -> None:
        look = look_of(self)
        width = max(20, min(78, int(self.app.size.width * 0.95)) - 7)  # less border, padding and scroll bar
        self.query_one(VerticalScroll).styles.max_height = max(4, self.app.size.height - ROWS_BESIDE)
        told = Text("\n").join(Text(drawable(line, look), style=style) for line, style in self._lines(width))
        self.query_one("#purge-plan", Static).update(told)
        self.query_one(Lines).repaint()

    def _lines(self, width: int) -> list[tuple[str, str]]:
        """What is told, a line and its style each."""
        look, found = look_of(self), self._found
        if found is None:
            return [(f"looking at what would go {look.ellipsis}", look.dim)]
        if isinstance(found, Problem):
            said = [(line, look.bad) for line in textwrap.wrap(f"It {found.what}.", width)]
            return [*said, *((line, "") for line in textwrap.wrap(found.fix, width))]
        parts = (
            (f"goes, for good ({bytes_text(found.bytes)})", going_lines(found)),
            ("remains", remaining_lines(found)),
        )
        lines: list[tuple[str, str]] = []
        for title, sentences in parts:
            lines.append((title, look.strong))
            for each in sentences:
                wrapped = textwrap.wrap(each, width, initial_indent="  ", subsequent_indent="    ")
                lines += [(line, "") for line in wrapped]
        return lines

    def _paint_keys(self, width: int, height: int) -> list[Text]:
        look, keys = look_of(self), Text()
        asks = self._found is not None and not isinstance(self._found, Problem)
        ready = asks and self._is_typed
        named = [("enter", "remove it")] if ready else []
        named += [("up/down", "scroll")] if asks and self.query_one(VerticalScroll).show_vertical_scrollbar else []
        for key, what in (*named, ("esc", "let it be" if asks else "back")):
            keys.append(key, style=look.accent).append(f" {what}   ", style=look.dim)
        return [keys]

    @property
    def _is_typed(self) -> bool:
        return self.query_one(Input).value.strip().lower() == WORD

    def on_resize(self, event: events.Resize) -> None:
        self._show()

    def on_input_changed(self) -> None:
        self._repaint_keys()

    def _repaint_keys(self) -> None:
        self.query_one(Lines).repaint()

    def on_input_submitted(self) -> None:
        if self._is_typed and not isinstance(self._found, Problem):
            self.answer(self._found)

    def action_scroll(self, rows: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=rows, animate=False)
