"""What is known of the data on the Data screen, and what a person chose of it. No widgets here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.data.shapes.parts import KIND_WORDS, goes_with
from engine.spec import DataSection, SourceSection
from profiles.problem import Problem
from tui.format import duration_text, rate_text, share_text
from tui.widgets.data.length_table import LengthTable

if TYPE_CHECKING:
    from engine.data.preview import DataPreview
    from engine.data.source import Source
    from tui.widgets.data.findings import Finding
    from tui.widgets.new_run.draft import Value


OF_TOKENS = ("data.chat_template", "data.personal")
"""Settings that make other tokens of the same rows, and so other lengths."""


@dataclass(frozen=True, slots=True)
class DataChoice:
    """What the Data screen hands on: where rows come from and how they are read, and the settings that were moved."""

    sources: tuple[SourceSection, ...]
    held_out: SourceSection | None = None
    settings: Mapping[str, Value] = field(default_factory=dict)
    """By dotted field, such as data.rows."""
    model: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(source.path for source in self.sources)

    @property
    def held_out_path(self) -> Path | None:
        return None if self.held_out is None else self.held_out.path


@dataclass(frozen=True, slots=True)
class Counts:
    """Where the rows go; whole, cut, left out and set aside add up to all of them."""

    whole: int
    cut: int
    aside: int
    exact: bool
    """Of every row; else of those that were read so far."""
    held_out: int | None = None
    """How many of the usable rows are held out."""
    in_held_out_file: int | None = None
    """Usable rows of the file that is held out; they are none of these."""
    left_out: int = 0
    """Rows beyond the number that data.rows asks for."""
    estimated_rows: int | None = None
    """How many rows there are in all, as far as the size tells, when not all were read."""
    trained: tuple[int, ...] = ()
    """Of each source, how many rows are trained on; () before all were prepared."""

    @property
    def rows(self) -> int:
        return self.whole + self.cut + self.aside + self.left_out


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something in the background is."""

    what: str
    share: float
    """Between 0 and 1."""
    rows_per_second: float | None = None
    seconds_left: float | None = None

    def words(self) -> list[str]:
        """ "preparing 34 %", "41,000 rows/s", "2 min left", the most telling first."""
        said = [f"{self.what} {share_text(round(self.share, 2))}"]
        if self.seconds_left is not None:
            said.append(f"{duration_text(self.seconds_left)} left")
        if self.rows_per_second:
            said.append(rate_text(self.rows_per_second, "rows/s"))
        return said


@dataclass(frozen=True, slots=True)
class DataPrepared:
    """What a finished preparation found: where every row went, and how long they are."""

    counts: Counts
    lengths: LengthTable
    tried: str = ""
    """What tried to get out of its seal, as a sentence."""


@dataclass(slots=True)
class SourceState:
    """One source, and what the first look at it found."""

    section: SourceSection
    preview: DataPreview | Problem | None = None
    before: DataPreview | None = None
    """The latest look that succeeded, for what is to stay on the screen while the source is read in another way."""

    def looked(self, found: DataPreview | Problem) -> None:
        """Take what a look at the source found."""
        self.preview = found
        self.before = self.found or self.before

    @property
    def found(self) -> DataPreview | None:
        return None if isinstance(self.preview, Problem) else self.preview


def default_of(setting: str) -> Any:
    """What a setting of the data section is when nobody says anything, by dotted field."""
    return DataSection.model_fields[setting.removeprefix("data.")].default


@dataclass
class DataBoard:
    """The sources on the table, the model they are for, and every setting of the data section that was moved."""

    sources: list[SourceState] = field(default_factory=list)
    shown: int = 0
    """The source that sample, X-ray and columns are about."""
    held_out: SourceSection | None = None
    model: Path | None = None
    settings: dict[str, Value] = field(default_factory=dict)
    lengths: LengthTable | None = None
    prompts: LengthTable | None = None
    """Tokens before the first answer of each of the first rows: a row no longer than that loses all of its answers."""
    prepared: Counts | None = None
    """What became of every row, once all were prepared."""
    findings: tuple[Finding, ...] = ()
    """What the quality report found."""
    template_problem: Problem | None = None
    """Why rows cannot be written with the model's tokenizer and template."""
    suggested_template: tuple[str, str] | None = None
    """The known chat template that suits the model, and why, where its own cannot be used."""
    progress: Progress | None = None
    """Of the preparation of every row, while it goes on."""
    prepare_problem: Problem | None = None
    """Why a run would stop before it has begun."""
    token_findings: tuple[Finding, ...] = ()
    """What is to be said of the first rows as this model reads them, and of its tokenizer and template."""
    tried: str = ""
    """What tried to get out of the seal while every row was prepared, as a sentence."""

    def take(self, choice: DataChoice) -> None:
        """Begin with a choice that was made before."""
        self.sources = [SourceState(section) for section in choice.sources]
        self.held_out, self.settings, self.model = choice.held_out, dict(choice.settings), choice.model or self.model
        self.shown = 0
        self.forget()

    def choose(self, train: Sequence[Path], held_out: Path | None) -> None:
        """Learn from these files; what was said of one that was on the table before is kept."""
        known = {state.section.path: state for state in self.sources}
        self.sources = [known.get(path) or SourceState(SourceSection(path=path)) for path in train]
        if held_out is None or self.held_out is None or self.held_out.path != held_out:
            self.held_out = None if held_out is None else SourceSection(path=held_out)
        self.shown = 0
        self.forget()

    @property
    def source(self) -> SourceState:
        return self.sources[self.shown]

    def value(self, setting: str) -> Any:
        """A setting of the data section, by dotted field."""
        return self.settings.get(setting, default_of(setting))

    def set(self, setting: str, value: Value | None) -> None:
        if value is None or value == default_of(setting):
            self.settings.pop(setting, None)
        else:
            self.settings[setting] = value

    @property
    def sequence_length(self) -> int:
        return self.value("data.sequence_length")

    def replace_section(self, index: int, **changes: Any) -> None:
        """Read a source in another way; what was known of it is forgotten where that depends on it."""
        state = self.sources[index]
        state.section = state.section.model_copy(update=changes)
        if changes.keys() - {"weight", "repeats"}:
            state.preview = None
            self.forget()

    def read_as(self, index: int, source: Source) -> None:
        """Read a source as said."""
        self.replace_section(index, **{each.name: getattr(source, each.name) for each in fields(source)})

    def forget(self) -> None:
        """What depends on how rows are read is no longer known."""
        self.forget_tokens()
        self.findings, self.suggested_template = (), None

    def forget_tokens(self) -> None:
        """What depends on the tokens of the rows is no longer known; what the report found in the files stands."""
        self.lengths = self.prompts = self.prepared = self.template_problem = self.prepare_problem = None
        self.token_findings, self.tried = (), ""

    def counts(self) -> Counts | None:
        """Of all sources together; None before the first look at each."""
        if self.prepared is not None:
            return self.prepared
        found = [state.found for state in self.sources]
        if not found or any(each is None for each in found):
            return None
        previews = [each for each in found if each is not None]
        usable = sum(each.usable_rows for each in previews)
        longer, lost = self._shares_cut()
        cut, lost_rows = round((longer - lost) * usable), round(lost * usable)
        complete = all(each.complete for each in previews)
        return Counts(
            whole=usable - cut - lost_rows,
            cut=cut,
            aside=sum(each.reject_count for each in previews) + lost_rows,
            exact=complete and (not longer or (self.lengths is not None and self.lengths.rows == usable)),
            estimated_rows=None if complete else sum(each.estimated_rows for each in previews),
        )

    def trained_rows(self) -> list[int]:
        """Of each source, how many rows are trained on; an estimate before all were prepared, 0 where nothing is
        known."""
        if self.prepared is not None and len(self.prepared.trained) == len(self.sources):
            return list(self.prepared.trained)
        kept = 1.0 if self.held_out is not None else 1.0 - self.value("data.held_out_share")
        found = [state.found for state in self.sources]
        usable = [each.estimated_rows * each.usable_rows / max(1, each.rows) if each else 0.0 for each in found]
        limit = self.value("data.rows")
        kept *= min(1.0, limit / sum(usable)) if limit and sum(usable) else 1.0
        return [round(kept * rows) for rows in usable]

    def _shares_cut(self) -> tuple[float, float]:
        """Of the usable rows: what share is longer than the sequence length, and what share loses all of its answer,
        so that it is set aside."""
        table, length = self.lengths, self.sequence_length
        if table is None or table.unit != "tokens" or not table.rows or self.is_divided:
            return 0.0, 0.0
        longer = table.cut_rows(length) / table.rows
        lost = self.prompts.cut_rows(length - 1) / self.prompts.rows if self.prompts and self.prompts.rows else 0.0
        return longer, min(longer, lost)

    @property
    def is_divided(self) -> bool:
        """Whether long rows are learnt in several parts, so that none is cut: plain text is."""
        return bool(self.sources) and all(state.found and state.found.kind == "text" for state in self.sources)

    def unreadable(self) -> Problem | None:
        """Why no row of a source can be looked at, if so."""
        for state in self.sources:
            if isinstance(state.preview, Problem):
                return state.preview
            if state.preview is not None and not state.preview.usable_rows:
                return state.preview.refusal(1.0)
        return None

    def problem(self) -> Problem | None:
        """Why nothing can be learnt from this, if so."""
        for state in self.sources:
            if isinstance(state.preview, Problem):
                return state.preview
            if state.preview is not None:
                refusal = state.preview.refusal(self.value("data.max_rejected_share"))
                # The rest of a large file may make up for what is wrong at its beginning.
                if refusal is not None and (state.preview.complete or not state.preview.usable_rows):
                    return refusal
        return self.unlike()

    def unlike(self) -> Problem | None:
        """Why these files cannot be learnt from in one run, if so: what they hold takes another objective."""
        kinds = [(state.section.path, state.found.kind) for state in self.sources if state.found and state.found.kind]
        for path, kind in kinds[1:]:
            first, first_kind = kinds[0]
            if kind is not None and first_kind is not None and not goes_with(kind, first_kind):
                what = f"holds {KIND_WORDS[kind]}, and {first.name} {KIND_WORDS[first_kind]}"
                return Problem(
                    path.name, what, "Learn from them in runs of their own, or read one as the other's kind."
                )
        return None

    def choice(self) -> DataChoice:
        return DataChoice(
            tuple(state.section for state in self.sources), self.held_out, dict(self.settings), self.model
        )
