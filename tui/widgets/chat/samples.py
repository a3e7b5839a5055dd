"""Held-out rows as questions: what a run was never trained on, with the answer it should give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from profiles.problem import Problem
from tui.theme import look_of
from tui.widgets.dialog import Dialog
from tui.widgets.new_run.text import cut

if TYPE_CHECKING:
    from engine.data.source import Source
    from engine.run.directory import RunDirectory

MOST_SAMPLES = 200


@dataclass(frozen=True, slots=True)
class HeldOutSample:
    """A held-out row: what is said before the last answer, and that answer."""

    messages: tuple[tuple[str, str], ...]
    """Role and content."""
    expected: str

    @property
    def question(self) -> str:
        return self.messages[-1][1]


def held_out_samples(run: RunDirectory) -> list[HeldOutSample]:
    """The first rows that `run` held out. Blocks. Raises Problem when there are none, or they cannot be read.

    Without a held-out file they are those that the run itself answered and wrote down.
    """
    held_out = run.spec().data.held_out
    samples = _from_file(held_out.source()) if held_out is not None else _from_journal(run)
    if not samples:
        what = "has no rows with a question and an answer" if held_out else "has no answered held-out rows"
        raise Problem(str(held_out.path if held_out else run.name), what, "Type a question instead.")
    return samples


def _from_file(source: Source) -> list[HeldOutSample]:
    from engine.data.contents import Conversation
    from engine.data.preview import preview

    samples: list[HeldOutSample] = []
    for sample in preview(source).samples[:MOST_SAMPLES]:
        content = sample.content
        if isinstance(content, Conversation) and content.answers:
            last = content.answers[-1]
            before = tuple((each.role, each.content) for each in content.messages[:last])
            if before:
                samples.append(HeldOutSample(before, content.messages[last].content))
    return samples


def _from_journal(run: RunDirectory) -> list[HeldOutSample]:
    from engine.run.telemetry.reading import read_state

    samples = read_state(run).samples[:MOST_SAMPLES]
    return [HeldOutSample((("user", sample.prompt),), sample.expected) for sample in samples]


class SamplePicker(Dialog["HeldOutSample | None"]):
    """Choose a held-out row; Esc chooses none."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,ctrl+c", "leave", "back", show=False),
        Binding("j", "move('down')", "down", show=False),
        Binding("k", "move('up')", "up", show=False),
        Binding("g", "move('first')", "first", show=False),
        Binding("G", "move('last')", "last", show=False),
    ]

    CSS = """
    SamplePicker { align: center middle; }
    SamplePicker .dialog { width: 96%; max-width: 140; padding: 0 1; height: auto; max-height: 90%; }
    SamplePicker OptionList {
        height: auto; max-height: 18; margin-top: 1; border: none; padding: 0; background: transparent;
        scrollbar-size-vertical: 0; text-wrap: nowrap; text-overflow: ellipsis;
    }
    SamplePicker.-ascii OptionList { text-overflow: clip; }
    SamplePicker OptionList:focus { border: none; background-tint: transparent; }
    SamplePicker OptionList > .option-list--option { padding: 0; }
    SamplePicker OptionList:ansi:focus > .option-list--option-highlighted {
        color: ansi_default; background: ansi_default; text-style: reverse;
    }
    SamplePicker.-ascii .dialog { border: ascii $accent; }
    """

    def __init__(self, samples: Sequence[HeldOutSample]):
        super().__init__()
        self._samples = samples

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(id="samples-title")
            yield OptionList(id="samples")

    def on_mount(self) -> None:
        look = look_of(self.query_one("#samples"))
        self.set_class(look.ascii, "-ascii")
        title = Text.assemble(("Ask a held-out row", look.strong), ("   never trained on", look.dim))
        self.query_one("#samples-title", Static).update(title)
        self.query_one("#samples", OptionList).add_options(
            Option(Text.assemble((f"{number:>4}  ", look.dim), cut(sample.question, 400, look)))
            for number, sample in enumerate(self._samples, 1)
        )
        self.query_one("#samples", OptionList).highlighted = 0

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_move(self, where: str) -> None:
        options = self.query_one("#samples", OptionList)
        moves = {"down": options.action_cursor_down, "up": options.action_cursor_up}
        moves |= {"first": options.action_first, "last": options.action_last}
        moves[where]()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.answer(self._samples[event.option_index])
