"""Export: what to write (of an adapter it or the merged model) and where; a child process then writes it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static
from textual.worker import get_current_worker

from profiles.problem import Problem, printable
from tui.format import bytes_of_text, bytes_text
from tui.monitor_text import progress_bar
from tui.telling import tell
from tui.theme import look_of
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from engine.export.request import Form
    from engine.run.directory import RunDirectory

ADAPTER_KINDS: dict[Form, str] = {
    "adapter": "the adapter alone, loaded beside its base model",
    "merged": "one whole model: base and adapter in one",
}
MODEL_KINDS: dict[Form, str] = {"merged": "the whole model, as the run left it"}
"""Of a run that tuned the model's own weights."""
AMOUNT_WIDTH = 26
SHOWN_SECONDS = 0.25
"""Progress is drawn at most so often: each drawing costs bytes."""


class _Left(Exception):
    """The app is left while it writes."""


class ExportDialog(ModalScreen[None]):
    """Asks, writes and tells. Esc leaves it before it writes; a writing export is finished first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("ctrl+t", "kind"),
        ("up", "kind"),
        ("down", "kind"),
        ("escape", "leave"),
    ]

    def __init__(self, run: RunDirectory, run_name: str):
        super().__init__()
        self._export_run, self._run_name = run, run_name
        self._kinds = ADAPTER_KINDS if _has_adapter(run) else MODEL_KINDS
        self._kind: Form = next(iter(self._kinds))
        self._state: Literal["asking", "writing", "done"] = "asking"
        self._progress = ("", 0, 0, 0.0)
        self._told = Text()
        self._shown_at = 0.0

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(f"Export {self._run_name}", markup=False, classes="dialog-question")
            yield Lines(self._paint_kinds, id="export-kinds")
            yield Input(str(self._folder(self._kind)), id="export-folder", compact=True)
            yield Lines(self._paint_state, id="export-state")

    def on_mount(self) -> None:
        folder = self.query_one(Input)
        folder.cursor_blink = False
        folder.focus()

    def _folder(self, kind: Form) -> Path:
        return self._export_run.path / "exports" / kind

    def _paint_kinds(self, width: int, height: int) -> list[Text]:
        look = look_of(self)
        lines = []
        for kind, what in self._kinds.items():
            chosen = kind == self._kind
            mark = look.glyph("● ", "* ") if chosen else "  "
            line = Text().append(mark + kind.ljust(9), style=look.accent if chosen else look.dim)
            lines.append(line.append(what, style="" if chosen else look.dim))
        return [*lines, Text(), Text("into", style=look.dim)]

    def _paint_state(self, width: int, height: int) -> list[Text]:
        look = look_of(self)
        if self._state == "asking":
            keys = Text()
            choose = [("up/down", "choose")] if len(self._kinds) > 1 else []
            for key, what in (("enter", "write it"), *choose, ("esc", "leave")):
                keys.append(key, style=look.accent).append(f" {what}   ", style=look.dim)
            return [*self._told_lines(width), keys]
        if self._state == "done":
            return [*self._told_lines(width), Text().append("esc", style=look.accent).append(" back", style=look.dim)]
        detail, done, total, began_at = self._progress
        seconds = time.monotonic() - began_at
        rate = f" {bytes_text(done / seconds)}/s" if done and seconds > 1 else ""
        amount = (bytes_of_text(done, total) + rate if total else "").rjust(AMOUNT_WIDTH)
        bar = progress_bar(done, total, max(10, width - AMOUNT_WIDTH), look)
        return [Text(detail or "starting", style=look.dim), bar.append(amount)]

    def _told_lines(self, width: int) -> list[Text]:
        """What came of it, a line at least."""
        return list(self._told.wrap(self.app.console, width)) or [Text()]

    def _show(self) -> None:
        for lines in self.query(Lines):
            lines.repaint()

    def action_kind(self) -> None:
        if self._state != "asking":
            return
        folder, before = self.query_one(Input), self._folder(self._kind)
        kinds = list(self._kinds)
        self._kind = kinds[(kinds.index(self._kind) + 1) % len(kinds)]
        if folder.value == str(before):
            folder.value = str(self._folder(self._kind))
        self._show()

    def action_leave(self) -> None:
        if self._state == "writing":
            self.notify("It is being written; wait for its end.", severity="warning")
        else:
            self.dismiss()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if self._state != "asking":
            return
        into, kind = Path(event.value.strip()).expanduser().absolute(), self._kind
        self._state, self._progress = "writing", ("", 0, 0, time.monotonic())
        self._show()
        self.run_worker(lambda: self._write(kind, into), thread=True)

    def _write(self, kind: Form, into: Path) -> None:
        """In a thread: start the child and wait for its end. Where the app is left, the child is ended."""
        from engine.export.request import export_run

        worker = get_current_worker()

        def progress(detail: str, done: int, total: int) -> None:
            if worker.is_cancelled:
                raise _Left
            now = time.monotonic()
            began_at = self._progress[3] if self._progress[0] == detail else now
            self._progress = (detail, done, total, began_at)
            if now - self._shown_at >= SHOWN_SECONDS:
                self._shown_at = now
                tell(self._show)

        try:
            warnings: list[str] = []
            written = export_run(self._export_run, kind, into, progress, warnings.append)
        except _Left:
            return
        except Problem as problem:
            tell(self._refused, problem)
        else:
            tell(self._written, written, warnings)

    def _refused(self, problem: Problem) -> None:
        self._end("asking", Text(f"{problem.what}. {problem.fix}", style=look_of(self).bad))

    def _written(self, written: Path, warnings: list[str]) -> None:
        look = look_of(self)
        told = Text().append(look.glyph("✓ ", "+ "), style=look.good).append(f"written to {printable(written, 500)}")
        self._end("done", told.append("".join(f"\n{warning}" for warning in warnings), style=look.warn))

    def _end(self, state: Literal["asking", "done"], told: Text) -> None:
        self._state, self._told = state, told
        shown = self.query_one("#export-state", Lines)
        shown.styles.height = len(self._told_lines(shown.content_size.width)) + 1
        self._show()


def _has_adapter(run: RunDirectory) -> bool:
    """Whether `run` trained an adapter; a run whose spec cannot be read is told of when it is exported."""
    try:
        return run.spec().method.adapts
    except Problem:
        return True
