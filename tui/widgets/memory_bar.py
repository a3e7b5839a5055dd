"""The memory bar: one bar split by what takes the memory, always in the same order and the same colours."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from tui.format import bytes_text
from tui.memory_shares import DRAWN, LETTERS, drawn_amounts, share_out
from tui.theme import DEFAULT_LOOK, Look
from tui.widgets.painted import Painted

ROOMY_WIDTH = 100
"""From this width on the legend sets its marks apart."""


def render_memory_bar(
    components: Mapping[str, int],
    total: int,
    width: int,
    ascii: bool = False,
    *,
    others_bytes: int = 0,
    look: Look | None = None,
    cut: bool = False,
) -> Text:
    """A bar of exactly `width` cells for `components` (bytes by name) out of `total` bytes.

    What others use is drawn after the components; what is free ends the bar. Anything above zero gets half a
    cell at least, and a sum above `total` fills the bar to the brim, so that it reads as full. `cut` says that
    more is free than `total` has, and ends the bar with an ellipsis.
    """
    look = look or DEFAULT_LOOK
    ascii = ascii or look.ascii
    inner = max(1, width - 2)
    amounts = drawn_amounts(components, others_bytes)
    # Letters where shades cannot tell the parts apart; half cells where they can.
    letters = ascii or not look.colored
    halves = share_out(amounts, total, inner if letters else inner * 2)
    edge_left, edge_right = ("[", "]") if ascii else ("▐", "▌")
    bar = Text(no_wrap=True).append(edge_left, style=look.faint)
    if letters:
        for name, count in halves.items():
            bar.append(LETTERS[name] * count, style=look.components[name])
        free = inner - sum(halves.values())
        bar.append(("." if ascii else "·") * free, style=look.components["free"])
    else:
        bar.append_text(_half_cells(halves, inner, look))
    return bar.append(look.ellipsis if cut else edge_right, style=look.faint)


def render_memory_legend(
    components: Mapping[str, int], width: int, look: Look, free_bytes: int | None = None
) -> list[Text]:
    """Lines of at most `width` cells that name each component's colour or letter and its size."""
    lines = [Text()]
    entries = [(name, components[name]) for name in DRAWN if components.get(name, 0) > 0]
    if free_bytes is not None:
        entries.append(("free", max(0, free_bytes)))
    lettered = look.ascii or not look.colored
    gap = " " if lettered or width >= ROOMY_WIDTH else ""
    for name, amount in entries:
        mark = (LETTERS.get(name, ".") if lettered else "■") + gap
        entry = Text.assemble((mark, look.components[name]), (name, look.dim), " ", bytes_text(amount))
        if lines[-1].cell_len and lines[-1].cell_len + 2 + entry.cell_len > width:
            lines.append(Text())
        if lines[-1].cell_len:
            lines[-1].append("  ")
        lines[-1].append_text(entry)
    return lines


def _half_cells(halves: Mapping[str, int], cells: int, look: Look) -> Text:
    names = [name for name, count in halves.items() for _ in range(count)]
    names += ["free"] * (cells * 2 - len(names))
    bar = Text()
    for left, right in zip(names[::2], names[1::2], strict=True):
        left_color, right_color = look.components[left], look.components[right]
        if left == right:
            bar.append("░" if left == "free" else "█", style=left_color)
        else:
            bar.append("▌", style=f"{left_color} on {right_color}")
    return bar


class MemoryBar(Painted):
    """A one-row memory bar that is given numbers with `show`."""

    DEFAULT_CSS = "MemoryBar { height: 1; width: 1fr; }"

    def __init__(
        self,
        components: Mapping[str, int] | None = None,
        total_bytes: int = 0,
        others_bytes: int = 0,
        *,
        id: str | None = None,
        classes: str | None = None,
    ):
        super().__init__(id=id, classes=classes)
        self._shown = (dict(components or {}), total_bytes, others_bytes)

    def show(self, components: Mapping[str, int], total_bytes: int, others_bytes: int = 0) -> None:
        """Draw these bytes by component, out of `total_bytes`."""
        self._shown = (dict(components), total_bytes, others_bytes)
        self.repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        components, total_bytes, others_bytes = self._shown
        return [render_memory_bar(components, total_bytes, width, others_bytes=others_bytes, look=self.look)]
