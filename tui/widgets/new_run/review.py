"""The review step: the whole run on one page, its name, the command that does the same, and the launch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Input, Static

from engine.spec import RunSpec
from profiles.problem import Problem, printable
from tui.format import compact_text, count_text, counted, learning_rate_text, share_text
from tui.seal_words import fix_words, level_words, refusal
from tui.telling import tell
from tui.theme import Look, look_of
from tui.widgets.new_run.draft import Draft, check_name
from tui.widgets.new_run.memory import MemoryForecast
from tui.widgets.new_run.places import label
from tui.widgets.new_run.sources import Sources
from tui.widgets.new_run.text import drawable, facts, problem_text

if TYPE_CHECKING:
    from engine.propose import Proposal
    from engine.run.directory import RunDirectory
    from engine.run.surviving.session_limits import Caution
    from engine.run.waiting.room import Room
    from engine.seal.ability import Ability

LABEL = 12


class ReviewStep(Vertical):
    """Posts `Launched` when the engine runs; a Problem is shown in place."""

    DEFAULT_CSS = """
    ReviewStep { height: 1fr; padding: 0 1; }
    ReviewStep #name-row { height: 1; padding: 0 1; layout: horizontal; margin-bottom: 1; }
    ReviewStep #name-label { width: 12; }
    ReviewStep #name { width: 1fr; background: transparent; padding: 0; }
    ReviewStep #name:focus { background-tint: transparent; }
    ReviewStep #page { height: 1fr; padding: 0 1; scrollbar-size-vertical: 0; }
    ReviewStep #facts, ReviewStep #cautions, ReviewStep #command, ReviewStep #outcome { height: auto; }
    ReviewStep #cautions { margin-top: 1; display: none; }
    ReviewStep #command { margin-top: 1; }
    ReviewStep MemoryForecast { margin-top: 1; }
    ReviewStep #outcome { padding: 0 1; max-height: 5; }
    """

    class RoomTold(Message):
        """Whether the memory is free is known: what the keys can do changed."""

    class Launched(Message):
        def __init__(self, run: RunDirectory):
            super().__init__()
            self.run = run

    def __init__(self, sources: Sources, id: str):
        super().__init__(id=id)
        self._sources = sources
        self.draft = Draft()
        self.room: Room | None = None
        """What is known of the memory, once it turned out to be taken."""
        self.launching = False
        self._ability: Ability | None = None
        self._cautions: Sequence[Caution] = ()

    def compose(self) -> ComposeResult:
        with Vertical(id="name-row"):
            yield Static(id="name-label")
            name = Input(id="name", compact=True, select_on_focus=False)
            name.cursor_blink = False
            yield name
        with VerticalScroll(id="page", can_focus=True):
            yield Static(id="facts")
            yield MemoryForecast(label_width=LABEL)
            yield Static(id="cautions")
            yield Static(id="command")
        yield Static(id="outcome")

    @property
    def look(self) -> Look:
        return look_of(self)

    @property
    def name_line(self) -> Input:
        return self.query_one("#name", Input)

    @property
    def page(self) -> VerticalScroll:
        return self.query_one("#page", VerticalScroll)

    @property
    def proposal(self) -> Proposal:
        assert self.draft.proposal is not None, "the review opens with what the settings step proposed"
        return self.draft.proposal

    @property
    def spec(self) -> RunSpec:
        """What is launched."""
        spec = self.proposal.spec
        changes: dict[str, object] = {"name": self.draft.name} if self.draft.name else {}
        if self.draft.seal != spec.privacy.seal:
            changes["privacy"] = spec.privacy.model_copy(update={"seal": self.draft.seal})
        return spec.model_copy(update=changes)

    def open(self, draft: Draft) -> None:
        """Show the run that `draft` describes."""
        self.draft, self.room = draft, None
        self.query_one("#name-label", Static).update(Text("name", style=self.look.dim))
        self.name_line.value = self.spec.name
        self.query_one(MemoryForecast).show(self.proposal)
        self.query_one("#outcome", Static).update("")
        self._show()
        self.page.focus()
        self._look_at_session()

    def tell_ability(self, ability: Ability) -> None:
        """What this machine can hold of a seal is known."""
        self._ability = ability
        self.reseal()

    def reseal(self) -> None:
        """Show the draft's seal as it is now."""
        if self.draft.proposal is not None:
            self._show()

    def on_resize(self) -> None:
        if self.draft.proposal is not None:
            self._show()

    def rename(self) -> None:
        self.screen.set_focus(self.name_line)
        self.name_line.cursor_position = len(self.name_line.value)

    def stop_rename(self) -> bool:
        """Leave the name as it was; False when it is not being edited."""
        if not self.name_line.has_focus:
            return False
        self.name_line.value = self.spec.name
        self.say(Text())
        self.page.focus()
        return True

    def launch(self, wait: bool = False) -> None:
        """Start the run, or let it `wait` for its memory; asks first where that is not free at this moment."""
        if self.launching:
            return
        if (refused := refusal(self.draft.seal, self._ability, "p, then b", explained=True)) is not None:
            self.say(problem_text(refused, self.look))
            return
        self.launching = True
        asked = self.room is not None
        self.say(
            Text(
                f"{'starting the engine' if asked else 'reading the memory'} {self.look.ellipsis}",
                style=self.look.accent,
            )
        )
        self._launch_in_thread(self.spec, asked, wait)

    def why_not(self, name: str) -> str | None:
        """Why the key `wait` or `smaller` cannot be used now; None when it can."""
        if self.room is None:
            return "the memory is free"
        return "this machine never has as much" if name == "wait" and not self.room.possible else None

    def say(self, words: Text) -> None:
        self.query_one("#outcome", Static).update(words)

    @on(Input.Submitted, "#name")
    def _named(self, event: Input.Submitted) -> None:
        event.stop()
        name = event.value.strip()
        try:
            check_name(self.spec, name)
        except Problem as problem:
            self.say(problem_text(problem, self.look))
            return
        self.draft.name = None if name == self.proposal.spec.name else name
        self.say(Text())
        self._show()
        self.page.focus()

    @work(thread=True, group="session", exclusive=True)
    def _look_at_session(self) -> None:
        tell(self._tell_cautions, self._sources.cautions())

    def _tell_cautions(self, cautions: Sequence[Caution]) -> None:
        self._cautions = cautions
        self._show_cautions()

    def _show_cautions(self) -> None:
        """What would end the run before its time, each with what to do about it."""
        rows = [("mind", printable(f"{caution.what} {caution.remedy}", 500)) for caution in self._cautions]
        words = facts(rows, self.look, LABEL, self._room + LABEL)
        words.stylize(self.look.warn)
        shown = self.query_one("#cautions", Static)
        shown.display = bool(rows)
        shown.update(words)

    @work(thread=True, group="launch")
    def _launch_in_thread(self, spec: RunSpec, asked: bool, wait: bool) -> None:
        try:
            room = None if asked else self._sources.room(spec)
            if room is not None and not room.fits:
                tell(self._ask, room)
                return
            run = self._sources.launch(spec, wait)
        except Problem as problem:
            tell(self._refused, problem)
        else:
            tell(self._launched, run)

    def _ask(self, room: Room) -> None:
        """Tell who took the memory, and what can be done."""
        self.launching, self.room = False, room
        wait = "w waits in the queue until it is free, " if room.possible else ""
        choice = f"{wait}d plans with what is free now, enter starts it anyway, esc goes back."
        told = drawable(f"This run {room.sentence()}.", self.look)
        self.say(Text.assemble((told, self.look.warn), "\n", choice))
        self.post_message(self.RoomTold())

    def _refused(self, problem: Problem) -> None:
        self.launching = False
        self.say(problem_text(problem, self.look))

    def _launched(self, run: RunDirectory) -> None:
        self.launching = False
        self.post_message(self.Launched(run))

    def _show(self) -> None:
        look = self.look
        self.query_one("#facts", Static).update(facts(self._rows(), look, LABEL, self._room + LABEL))
        self._show_cautions()
        self.query_one("#command", Static).update(self._command())

    def _rows(self) -> list[tuple[str, str | Text]]:
        spec, geometry, between = self.spec, self.proposal.geometry, self.look.separator
        size = f"{compact_text(geometry.parameters)} parameters"
        data = [printable(path.name) for path in spec.data.paths]
        rows_per_step = f"{spec.train.micro_batch} {self.look.glyph('×', 'x')} {spec.train.gradient_accumulation}"
        return [
            ("model", between.join((label(spec.model.path), geometry.architecture, size))),
            ("data", f"{', '.join(data)}{between}{self._learnt(spec)}"),
            ("held out", self._held_out(spec)),
            ("method", self._method(spec)),
            ("length", f"{count_text(spec.data.sequence_length)} tokens{between}{self._packing(spec)}"),
            ("training", f"{self._extent(spec)}{between}{rows_per_step} rows a step"),
            ("rate", between.join((learning_rate_text(spec.optimizer.learning_rate), *self._rate(spec)))),
            ("seal", self._seal(spec)),
        ]

    def _learnt(self, spec: RunSpec) -> str:
        """What of the data is learnt, and by what objective where it is not imitation."""
        if spec.objective.kind != "next_token":
            return f"learnt by {spec.objective.kind}"
        return f"loss on the {spec.data.train_on.replace('_', ' ')}"

    def _held_out(self, spec: RunSpec) -> str:
        where = (
            printable(spec.data.held_out.path.name)
            if spec.data.held_out
            else f"{share_text(spec.data.held_out_share)} of the rows"
        )
        every = spec.evaluation.every_steps
        cadence = f"measured every {count_text(every)} steps" if every else "measured before and after"
        return f"{where}{self.look.separator}{cadence}"

    def _method(self, spec: RunSpec) -> str:
        if spec.method.kind == "full":
            return "full: every weight is trained"
        if spec.method.kind == "partial":
            return f"partial: the last {counted(spec.method.trained_layers, 'layer')} and the final norm are trained"
        targets = spec.method.targets
        words = "all linear layers" if targets == "all-linear" else ", ".join(targets)
        between = self.look.separator
        rank = f"rank {spec.method.rank}{between}alpha {spec.method.alpha:g}"
        return f"{spec.method.kind}{between}{rank}{between}{words}"

    def _packing(self, spec: RunSpec) -> str:
        return "packed" if spec.data.packing else "one conversation a row"

    def _seal(self, spec: RunSpec) -> str:
        """What the level means here, and what an administrator may do where a layer is missing."""
        level, ability = spec.privacy.seal, self._ability
        fix = fix_words(ability) if ability is not None and level != "off" else ""
        return level_words(level, ability) + (f"\nfix: {fix}" if fix else "")

    def _extent(self, spec: RunSpec) -> str:
        if spec.train.max_steps is not None:
            return f"{count_text(spec.train.max_steps)} steps"
        return f"{spec.train.epochs:g} {'epoch' if spec.train.epochs == 1 else 'epochs'}"

    def _rate(self, spec: RunSpec) -> tuple[str, ...]:
        checkpointing = spec.train.gradient_checkpointing
        words = (spec.schedule.kind, f"{share_text(spec.schedule.warmup_share)} warm-up", spec.optimizer.kind)
        return (*words, f"checkpointing 1 in {checkpointing}") if checkpointing else words

    def _command(self) -> Text:
        words = [shlex.quote(word) for word in self.draft.command()]
        lines, room = [" ".join(words[:2])], self._room
        for option, value in zip(words[2::2], words[3::2], strict=True):
            if len(lines[-1]) + len(option) + len(value) + len("   \\") > room:
                lines[-1] += " \\"
                lines.append("   ")
                room = self._room + LABEL  # only the first line stands behind the label
            lines[-1] += f" {option} {value}"
        shown = drawable("\n".join(printable(line, 1000) for line in lines), self.look)
        return Text.assemble((f"{'command':<{LABEL}}", self.look.dim), shown)

    @property
    def _room(self) -> int:
        return max(20, (self.page.size.width or 78) - LABEL)
