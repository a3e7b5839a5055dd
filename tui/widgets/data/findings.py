"""What is to be said of the data, each with what one key would do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from profiles.problem import Problem
from tui.format import counted, share_text
from tui.widgets.data.length_table import whole_at

if TYPE_CHECKING:
    from engine.data.preview import DataPreview
    from engine.data.source import Source
    from engine.data.tokens.desk import Survey
    from tui.widgets.data.board import DataBoard
    from tui.widgets.new_run.draft import Value

Level = Literal["bad", "warn", "good"]
ViewName = Literal["sample", "xray", "lengths", "columns", "report", "mix"]

CUT_SHARE_TOLD = 0.005
"""Below this share of cut rows there is nothing to decide: the counts tell of them."""
REPORT_ROWS = 2000
"""Rows of the first quality report; W makes one of every row."""
REJECT_LADDER = (0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True, slots=True)
class SetValue:
    """Set a setting of the data section."""

    setting: str
    value: Value
    label: str


@dataclass(frozen=True, slots=True)
class Show:
    """Go to a view, where a person decides; `filter` chooses the rows of the sample."""

    view: ViewName
    label: str
    filter: str = ""
    lines: frozenset[int] = frozenset()
    """Only these rows."""


@dataclass(frozen=True, slots=True)
class ReadAs:
    """Read a source in another way."""

    index: int
    source: Source
    label: str


@dataclass(frozen=True, slots=True)
class Again:
    """Do once more what failed."""

    label: str = "try again"


Fix = SetValue | Show | ReadAs | Again


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, how grave it is, and what can be done about it."""

    level: Level
    title: str
    detail: tuple[str, ...] = ()
    """Lines below it: places, examples."""
    fix: Fix | None = None
    lines: frozenset[int] = frozenset()
    """Of some rows that it is about."""
    advice: tuple[str, ...] = ()
    """What to think of, in sentences."""


def warnings_of(board: DataBoard) -> list[Finding]:
    """What a person should know before going on, the gravest first; every one has a fix."""
    tried = (board.tried, *(state.found.tried for state in board.sources if state.found))
    found = [*findings_of_tries(tried), *_of_reading(board), *_of_lengths(board), *board.token_findings]
    found += [each for each in board.findings if each.level != "good" and each.fix is not None]
    chosen = [each for each in found if not _is_done(board, each.fix)]
    return sorted(chosen, key=lambda each: each.level != "bad")


def _is_done(board: DataBoard, fix: Fix | None) -> bool:
    return isinstance(fix, SetValue) and board.value(fix.setting) == fix.value


def _of_reading(board: DataBoard) -> list[Finding]:
    found = []
    for index, state in enumerate(board.sources):
        if isinstance(state.preview, Problem):
            found.append(Finding("bad", _sentence(state.preview), fix=Show("columns", "say how to read it")))
        elif state.preview is not None and state.preview.unclear is not None:
            found.append(_of_unclear(index, state.preview))
        elif state.preview is not None and state.preview.reject_count:
            name = f" of {state.section.path.name}" if len(board.sources) > 1 else ""
            found.append(_of_rejects(state.preview, name, board.value("data.max_rejected_share")))
    if (unlike := board.unlike()) is not None:
        label = "take one out with d: one run learns from one kind"
        found.append(Finding("bad", _sentence(unlike), fix=Show("mix", label)))
    if board.template_problem is not None:
        found.append(_of_template(board, board.template_problem))
    elif board.prepare_problem is not None:
        rejected = "cannot be used" in board.prepare_problem.what
        fix = Show("sample", "see what is set aside", "set aside") if rejected else Again()
        found.append(Finding("bad", _sentence(board.prepare_problem), fix=fix))
    return found


def _of_unclear(index: int, preview: DataPreview) -> Finding:
    assert preview.unclear is not None
    if not preview.suggestions:
        return Finding("bad", _sentence(preview.unclear), fix=Show("columns", "point at the columns"))
    first = preview.suggestions[0]
    return Finding("bad", _sentence(preview.unclear), fix=ReadAs(index, first.source, first.words))


def _of_rejects(preview: DataPreview, name: str, allowed: float) -> Finding:
    count, rows = preview.reject_count, preview.rows
    if count == rows:
        fix: Fix = Show("columns", "say what the columns are")
        return Finding("bad", f"No row{name} can be used: {preview.rejected[0]}", fix=fix)
    share = count / rows
    what = f"{counted(count, 'row')}{name} ({share_text(round(share, 3))}) cannot be used"
    more = next((each for each in REJECT_LADDER if each >= share), None)
    if share <= allowed or more is None:
        return Finding("warn", f"{what} and will be set aside", fix=Show("sample", "see them", "set aside"))
    fix = SetValue("data.max_rejected_share", more, f"allow {share_text(more)}")
    return Finding("bad", f"{what}, more than the {share_text(allowed)} allowed", fix=fix)


def _of_template(board: DataBoard, problem: Problem) -> Finding:
    title = _sentence(problem)
    if "template" not in title:
        return Finding("bad", title, fix=Show("xray", "see a row's tokens"))
    if board.suggested_template is not None and board.value("data.chat_template") == "model":
        name, why = board.suggested_template
        return Finding("bad", title, fix=SetValue("data.chat_template", name, f"write them as {name}: {why}"))
    return Finding("bad", title, fix=Show("mix", "choose another template"))


def findings_of_survey(survey: Survey, source: str) -> list[Finding]:
    """What is to be said of the first rows as the model reads them, the most frequent first. `source` names the file
    where there are several."""
    rows = len(survey.lengths) + sum(survey.set_aside.values())
    of = f"{rows:,} rows of {source}" if source else f"{rows:,} rows"
    told: list[tuple[int, Finding]] = []
    for reason, count in survey.set_aside.items():
        level: Level = "bad" if count == rows else "warn"
        fix = Show("mix", "choose another template") if "template" in reason else Show("xray", "see a row's tokens")
        told.append((count, Finding(level, f"{count:,} of {of} are set aside: a row {reason}", fix=fix)))
    for role, count in survey.altered.items():
        said = f"{count:,} of {of}: the chat template leaves out or changes what {role} messages say"
        told.append((count, Finding("warn", said, fix=Show("xray", "see a row's tokens"))))
    for sentence, count in survey.warnings.items():
        told.append((count, Finding("warn", f"{count:,} of {of}: {sentence}", fix=Show("xray", "see a row's tokens"))))
    return [finding for _, finding in sorted(told, key=lambda each: -each[0])]


def findings_of_notes(notes: Sequence[str]) -> list[Finding]:
    """What a person should know of the model's tokenizer and of the template that was chosen."""
    found = []
    for note in notes:
        about_template = note.startswith("the chat template")
        fix = Show("mix", "choose another template") if about_template else Show("xray", "see a row's tokens")
        found.append(Finding("warn", note, fix=fix))
    return found


def findings_of_tries(tried: Iterable[str]) -> list[Finding]:
    """Of what readers of the data tried to get out of their seal, as sentences; empty ones are of those who did not."""
    fix = Show("mix", "see which data and model it read")
    return [Finding("bad", sentence, fix=fix) for sentence in tried if sentence]


def _of_lengths(board: DataBoard) -> list[Finding]:
    table, length = board.lengths, board.sequence_length
    if table is None or table.unit != "tokens" or not table.rows or board.is_divided:
        return []
    share = table.cut_rows(length) / table.rows
    if share < CUT_SHARE_TOLD:
        return []
    longer = whole_at(table)
    fix = SetValue("data.sequence_length", longer, f"length {longer:,}") if longer and longer > length else None
    what = f"{share_text(round(share, 3))} of the rows are longer than {length:,} tokens and lose their end"
    found = [Finding("warn", what, fix=fix or Show("lengths", "see the lengths"))]
    lost = board.prompts.cut_rows(length - 1) / board.prompts.rows if board.prompts and board.prompts.rows else 0
    if lost:
        what = f"{share_text(round(lost, 3))} of the rows lose their answer at {length:,} tokens and are set aside"
        found.insert(0, Finding("bad", what, fix=fix or Show("lengths", "see the lengths")))
    return found


def _sentence(problem: Problem) -> str:
    return f"{Path(problem.where).name if '/' in problem.where else problem.where}: {problem.what}"
