"""What is to be said of the chosen profile: whether it fits, its memory by part, why it is so, what was confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from profiles.problem import Problem
from tui import plan_words as words
from tui.format import bytes_text, share_text
from tui.theme import Look
from tui.widgets.memory_bar import render_memory_legend
from tui.widgets.new_run.draft import SETTINGS
from tui.widgets.new_run.text import drawable, problem_line, wrapped
from tui.widgets.painted import Painted, cut

if TYPE_CHECKING:
    from engine.fit.replay import Replayed
    from profiles.planner import Profile
    from tui.widgets.plan.board import Board, Row

LABEL = 8
REASON_COLUMN = 38
_SHOW = {setting.field: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Confirming:
    """A replay of the chosen profile is on its way."""


class PlanDetail(Painted):
    """Takes the height that is left; what matters most comes first."""

    DEFAULT_CSS = "PlanDetail { height: 1fr; width: 1fr; padding: 0 1; }"

    def __init__(self, *, id: str | None = None):
        super().__init__(id=id)
        self._board: Board | None = None
        self._refusal: Problem | None = None
        self._confirmation: Replayed | Problem | Confirming | None = None

    def show(
        self,
        board: Board,
        refusal: Problem | None = None,
        confirmation: Replayed | Problem | Confirming | None = None,
    ) -> None:
        """Tell of the board's chosen profile; `refusal` is why the last move was not made."""
        self._board, self._refusal, self._confirmation = board, refusal, confirmation
        self.repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        board, look = self._board, self.look
        if board is None:
            return []
        row = board.row
        lines = [self._state_line(row.shown, width, look)]
        if self._refusal is not None:
            lines += problem_line(self._refusal, look).wrap(self.app.console, width)[:2]
        legend = render_memory_legend(row.shown.estimate.components, width, look)
        lines += legend[: 1 if height < 7 else 2]
        confirmation = self._confirmation_lines(row.shown, width, look)
        room = max(1, height - len(lines) - len(confirmation))
        lines += self._why_lines(row, width, look)[:room]
        lines += confirmation
        if height - len(lines) > 4:
            lines += [*_phase_lines(row.shown, width, look), Text(), *self._values(row.shown, width, look)]
        return [cut(line, width, look) for line in lines]

    def _state_line(self, profile: Profile, width: int, look: Look) -> Text:
        assert self._board is not None
        glyph = look.glyph(words.FITS, "+") if profile.fits else look.glyph(words.NO_FIT, "x")
        line = Text().append(f"{glyph} {words.room_words(profile)}", style=look.good if profile.fits else look.bad)
        estimate = profile.estimate
        error = f"{look.glyph('±', '+-')}{share_text(round(estimate.error_share, 2))}"
        more = [words.trained_words(profile, self._board.plan.geometry), f"peak during {estimate.phase}, {error}"]
        for text in more:
            if line.cell_len + len(look.separator) + len(text) <= width:
                line.append(look.separator + text, style=look.dim)
        return line

    def _why_lines(self, row: Row, width: int, look: Look) -> list[Text]:
        sentences = [*row.shown.why]
        if row.changes:
            proposed = row.proposed
            sentences.insert(0, f"changed by you; proposed: {words.rate_words(proposed)} tok/s at "
                             f"{bytes_text(proposed.peak_bytes)}; r takes it back")  # fmt: skip
        return _labelled("why", sentences, width, look)

    def _confirmation_lines(self, profile: Profile, width: int, look: Look) -> list[Text]:
        found = self._confirmation
        if found is None:
            return []
        if isinstance(found, Confirming):
            said, style = f"a child process counts one step's tensors {look.ellipsis}", look.dim
        elif isinstance(found, Problem):
            said, style = f"could not confirm: {found.what}", look.warn
        else:
            said, style = words.replay_words(found.allocated_bytes, found.phases, profile.estimate), ""
        return _labelled("replay", [said], width, look, style)

    def _values(self, profile: Profile, width: int, look: Look) -> list[Text]:
        """Every value the profile sets, with its reason; for a screen that has the room."""
        lines = []
        for field, value in profile.values.items():
            setting = _SHOW.get(field)
            if setting is None or profile.method not in setting.methods:
                continue
            line = Text().append(f"{setting.label:<17}", style=look.dim).append(f"{setting.show(value):>12}")
            unit = f" {setting.unit}" if setting.unit else ""
            line.append(unit, style=look.dim)
            line.append(" " * max(2, REASON_COLUMN - line.cell_len))
            lines.append(line.append(drawable(profile.reasons.get(field, setting.meaning), look), style=look.dim))
        return lines


def _phase_lines(profile: Profile, width: int, look: Look) -> list[Text]:
    """The tensors' bytes at the highest point of each phase of a step."""
    from profiles.memory import TRAINING_PHASES  # here, since the first screen is shown without it

    order = ("loading", *TRAINING_PHASES, "evaluation", "answers", "saving")
    known = profile.estimate.phases
    phases = [f"{name} {bytes_text(known[name])}" for name in order if name in known]
    return _labelled("phases", [look.separator.join(phases)], width, look, look.dim) if phases else []


def _labelled(label: str, sentences: Sequence[str], width: int, look: Look, style: str = "") -> list[Text]:
    """Each sentence on lines of its own beside one dim label."""
    lines = [part for sentence in sentences for part in wrapped(sentence, max(20, width - LABEL), look)]
    return [
        Text.assemble((f"{label if not number else '':<{LABEL}}", look.dim), (str(line), style))
        for number, line in enumerate(lines)
    ]
