"""What is to be said of the data, each with what one key would do about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from profiles.problem import Problem
from tui.format import counted, share_text
from tui.widgets.data_length_table import whole_at

if TYPE_CHECKING:
    from engine.data.preview import DataPreview
    from engine.data.source import Source
    from tui.widgets.data_board import DataBoard
    from tui.widgets.new_run_draft import Value

Level = Literal["bad", "warn", "good"]
ViewName = Literal["sample", "xray", "lengths", "columns", "report", "mix"]

CUT_SHARE_TOLD = 0.005
"""Below this share of cut rows there is nothing to decide: the counts tell of them."""
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


Fix = SetValue | Show | ReadAs


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


def warnings_of(board: DataBoard) -> list[Finding]:
    """What a person should know before going on, the gravest first; every one has a fix."""
    found = [*_of_reading(board), *_of_lengths(board)]
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
    if board.template_problem is not None:
        found.append(_of_template(board, board.template_problem))
    elif board.prepare_problem is not None:
        fix = Show("sample", "see what is set aside", "set aside")
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
