"""The data step: choose the file or files to learn from, and what is held out to measure by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from textual import on
from textual.app import ComposeResult

from engine.data.contents import Content
from engine.spec import DataSection, SourceSection
from profiles.problem import Problem, printable
from tui.format import bytes_text, compact_text, count_text, counted, share_text
from tui.widgets.data.board import DataChoice
from tui.widgets.data.content import KIND_WORDS, on_terminal, parts_of
from tui.widgets.lines import Lines
from tui.widgets.new_run.places import Place, held_out_beside
from tui.widgets.new_run.source import SourceStep
from tui.widgets.new_run.text import cut, drawable, facts, problem_text
from tui.widgets.path_picker import PathPicker

if TYPE_CHECKING:
    from engine.data.preview import DataPreview

SHOWN_REJECTS, SHOWN_SAMPLES = 3, 3
SAMPLE_CHARACTERS = 1200
LABEL = 11
ALLOWED_SHARE = DataSection.model_fields["max_rejected_share"].default


@dataclass(frozen=True, slots=True)
class DataFound:
    """A file's preview, and the usable file beside it that its name marks as held out."""

    preview: DataPreview
    beside: Path | None
    beside_rows: int = 0
    beside_tried: str = ""

    @property
    def tried(self) -> list[str]:
        """What the readers of these files tried to get out of their seals, as sentences."""
        return [told for told in dict.fromkeys((self.preview.tried, self.beside_tried)) if told]


def look_at_data(preview: Callable[[Path], DataPreview], path: Path) -> DataFound:
    """Read a data file and look for its held-out companion. Blocks; raises Problem."""
    shown = preview(path)
    beside = held_out_beside(path)
    if beside is None:
        return DataFound(shown, None)
    try:
        also = preview(beside)
        return DataFound(shown, beside, also.estimated_rows, also.tried)
    except Problem:
        return DataFound(shown, None)  # it is told of when a person points at it; nothing here depends on it


class DataStep(SourceStep):
    """`choice_of` the path that `Done` is posted with is what was chosen."""

    kind = "data"

    DEFAULT_CSS = "DataStep #held-out { dock: bottom; height: 1; width: 100%; padding: 0 1; }"

    def __init__(self, find_places: Callable[[], Sequence[Place]], preview: Callable[[Path], DataPreview], id: str):
        super().__init__(find_places, lambda path: look_at_data(preview, path), id)
        self._marked: list[Path] = []
        self._held_out: Path | None = None
        self._held_out_chosen = False

    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield Lines(self._held_out_line, id="held-out")

    @property
    def empty_words(self) -> str:
        return (
            "Choose a file or a folder: JSONL, JSON, CSV, Parquet, Arrow, text or Markdown, packed or not. "
            "It is read here and goes nowhere."
        )

    def take(self, train: Sequence[Path], held_out: Path | None) -> None:
        """Begin with files that were chosen before."""
        self._marked, self._held_out = list(train), held_out
        self._held_out_chosen = held_out is not None
        self._mark()

    @property
    def choice(self) -> DataChoice:
        """What would be chosen if the highlighted file were taken."""
        return self.choice_of(self._highlighted)

    def choice_of(self, path: Path | None) -> DataChoice:
        """The files to learn from and the one to hold out if `path` is taken, read as finetui finds best."""
        train = self._marked or ([] if path is None else [path])
        held_out = self._held_out_of(train)
        return DataChoice(
            tuple(SourceSection(path=each) for each in train),
            None if held_out is None else SourceSection(path=held_out),
        )

    def toggle_train(self) -> None:
        """Add the highlighted file to those to learn from, or take it out."""
        path = self._usable_highlight
        if path is None:
            return
        if path in self._marked:
            self._marked.remove(path)
        else:
            self._marked.append(path)
        self._mark()

    def toggle_held_out(self) -> None:
        """Hold the highlighted file out, or no longer."""
        path = self._usable_highlight
        if path is None:
            return
        self._held_out = None if path == self._held_out and self._held_out_chosen else path
        self._held_out_chosen = True
        if path in self._marked:
            self._marked.remove(path)
        self._mark()

    def refusal(self, found: DataFound) -> Problem | None:
        shown = found.preview
        problem = shown.refusal(ALLOWED_SHARE)
        # The rest of a large file may make up for what is wrong at its beginning.
        return problem if shown.complete or not shown.usable_rows else None

    def describe(self, found: DataFound, width: int) -> Text:
        look, shown = self.look, found.preview
        about = "" if shown.complete else f"about {compact_text(shown.estimated_rows)}; read "
        lengths = shown.characters
        rows: list[tuple[str, str | Text]] = [
            ("rows", f"{about}{count_text(shown.rows)}"),
            ("holds", KIND_WORDS[shown.kind] if shown.kind else "nothing that is known"),
            ("fields", shown.shape or ", ".join(printable(column.name, 40) for column in shown.columns) or "none"),
            ("format", f"{shown.format}{look.separator}{bytes_text(shown.bytes)}"),
            ("length", f"{count_text(lengths.mean)} characters on average"),
            ("longest", f"{count_text(lengths.maximum)} characters"),
        ]
        parts = [facts(rows, look, LABEL, width)]
        if problem := self.refusal(found):
            parts.insert(0, problem_text(problem, look))
        elif shown.reject_count:
            share = share_text(shown.reject_count / shown.rows)
            head = f"{counted(shown.reject_count, 'row')} ({share}) cannot be used and will be set aside"
            lines = [str(each) for each in shown.rejected[:SHOWN_REJECTS]]
            parts.append(Text.assemble((head, look.warn), drawable("\n" + "\n".join(lines), look)))
        for tried in found.tried:
            parts.insert(0, Text(drawable(f"{look.glyph('✗', 'x')} {tried}", look), style=look.bad))
        if shown.notes:
            parts.append(Text(drawable("\n".join(shown.notes), look), style=look.dim))
        parts += [self._sample(sample.content, width) for sample in shown.samples[:SHOWN_SAMPLES]]
        return Text("\n\n").join(parts)

    @on(PathPicker.Highlighted)
    def _held_out_changes(self) -> None:
        self.query_one("#held-out", Lines).repaint()

    def _inspected(self, path: Path, found: object) -> None:
        super()._inspected(path, found)
        self.query_one("#held-out", Lines).repaint()

    def _held_out_of(self, train: Sequence[Path]) -> Path | None:
        """The file to hold out; None to set rows aside."""
        if self._held_out_chosen:
            return None if self._held_out in train else self._held_out
        found = self.found(train[0]) if train else None
        return found.beside if isinstance(found, DataFound) and found.beside not in train else None

    @property
    def _usable_highlight(self) -> Path | None:
        found = self.found(self._highlighted) if self._highlighted else None
        return self._highlighted if isinstance(found, DataFound) else None

    def _mark(self) -> None:
        marks = dict.fromkeys(self._marked, "train")
        if self._held_out is not None:
            marks[self._held_out] = "held out"
        self.picker.mark(marks)
        self.query_one("#held-out", Lines).repaint()

    def _held_out_line(self, width: int, height: int) -> list[Text]:
        look, path = self.look, self.choice.held_out_path
        if path is None:
            words = "some of the rows, set aside"
        elif self._held_out_chosen:
            words = printable(path.name)
        else:
            words = f"{printable(path.name)}, found beside it{self._beside_rows()}"
        return [Text.assemble(("held out  ", look.dim), cut(words, width - 10, look))]

    def _beside_rows(self) -> str:
        found = self.found(self._highlighted) if self._highlighted else None
        return f" ({counted(found.beside_rows, 'row')})" if isinstance(found, DataFound) else ""

    def _sample(self, content: Content, width: int) -> Text:
        rows: list[tuple[str, str | Text]] = [
            (part.word, on_terminal(part.text, SAMPLE_CHARACTERS)) for part in parts_of(content)
        ]
        return facts(rows, self.look, LABEL, width)


class AnyDataStep(DataStep):
    """Takes files that cannot be learnt from as they are, too: the Data screen shows why, and how to mend it."""

    def _refused(self, found: object) -> Problem | None:
        return None
