"""The memory that a run is predicted to take: a sentence, the memory bar, and what each part of it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from tui.format import bytes_of_text, bytes_text, share_text
from tui.widgets.memory_bar import render_memory_bar, render_memory_legend
from tui.widgets.painted import Painted

if TYPE_CHECKING:
    from engine.propose import Proposal


class MemoryForecast(Painted):
    """The bar with the predicted peak, and what each part is. Says so while a new price is being found."""

    DEFAULT_CSS = "MemoryForecast { height: 4; width: 1fr; }"

    def __init__(self, label_width: int):
        super().__init__()
        self._label_width = label_width
        self._proposal: Proposal | None = None
        self._pricing = False

    def show(self, proposal: Proposal | None, pricing: bool = False) -> None:
        self._proposal, self._pricing = proposal, pricing
        self.repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        look = self.look
        if self._proposal is None:
            return []
        estimate, budget = self._proposal.estimate, self._proposal.budget_bytes
        enough = self._proposal.fits
        peak = bytes_of_text(estimate.peak_bytes, budget)
        error = f" {look.glyph('±', '+-')} {share_text(round(estimate.error_share, 2))}"
        words = Text.assemble("  ", (peak, look.strong if enough else look.bad), (f"{error:<8}", look.dim))
        label = Text(f"{'memory':<{self._label_width}}", style=look.dim)
        bar_width = max(10, width - self._label_width - words.cell_len)
        bar = render_memory_bar(estimate.components, budget, bar_width, look=look)
        legend = render_memory_legend(estimate.components, width - self._label_width, look)
        if self._pricing:
            legend = [Text(f"pricing {look.ellipsis}", style=look.dim), *legend[1:]]
        elif not enough:
            short = bytes_text(estimate.peak_bytes - budget)
            too_much = f"{short} more than is free: try qlora, checkpointing or fewer rows"
            legend = [Text(too_much, style=look.bad), *legend]
        indent = " " * self._label_width
        return [Text.assemble(label, bar, words), *(Text.assemble(indent, line) for line in legend)]
