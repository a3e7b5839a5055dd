"""The monitor's memory: what was predicted above what was measured, in one scale and in the same colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from tui.format import bytes_text
from tui.memory_shares import ZOOM
from tui.widgets.memory_bar import render_memory_bar, render_memory_legend
from tui.widgets.painted import Painted

if TYPE_CHECKING:
    from engine.run.telemetry.events import RunState

LABEL_WIDTH = 10
SIZE_WIDTH = 9
BESIDE_WIDTH = 12
TRIED_WIDTH = 17
"""Beside the prediction, of a run whose trial step was measured."""


class MemoryPanel(Painted):
    """Two bars and a legend of as many lines as its height has left."""

    DEFAULT_CSS = "MemoryPanel { height: 3; width: 1fr; padding: 0 1; }"

    def __init__(self, *, id: str | None = None):
        super().__init__(id=id)
        self._state: RunState | None = None

    def show(self, state: RunState) -> None:
        self._state = state
        self.repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        state, look = self._state, self.look
        if state is None:
            return []
        predicted, peak = state.plan.get("predicted") or {}, state.plan.get("predicted_peak_bytes") or 0
        measured = dict(state.measured_memory)
        measured_peak = state.measured_peak_bytes or state.memory_bytes or _worker_bytes(state)
        if not measured and measured_peak:
            measured = {"ours": measured_peak}
        total, others = device_memory(state, measured_peak)
        scale = min(total or 2 * peak, ZOOM * max(peak, measured_peak + others)) or 1
        tried = f", tried {bytes_text(state.probe['measured'])}" if state.probe.get("measured") else ""
        bar_width = max(8, width - LABEL_WIDTH - SIZE_WIDTH - (TRIED_WIDTH if tried else BESIDE_WIDTH))
        lines = []
        for label, components, amount, beside in (
            ("predicted", predicted, peak, 0),
            ("measured", measured, measured_peak, others),
        ):
            line = Text(no_wrap=True).append(label.ljust(LABEL_WIDTH), style=look.dim)
            bar = render_memory_bar(components, scale, bar_width, others_bytes=beside, look=look, cut=scale < total)
            line.append_text(bar)
            line.append(f"{bytes_text(amount or None):>{SIZE_WIDTH}}")
            of_total = f" of {bytes_text(total)}" if total else ""
            lines.append(line.append(of_total if label == "measured" else tried, style=look.dim))
        shown = {**(measured if len(measured) > 1 else predicted), **({"others": others} if others else {})}
        free = max(0, total - measured_peak - others) if total else None
        return lines + render_memory_legend(shown, width, look, free)


def _worker_bytes(state: RunState) -> int:
    """What the worker process takes of the RAM, where that is the memory it trains in; 0 elsewhere or unknown."""
    return 0 if state.plan.get("device") == "cuda" else state.device.get("worker_bytes") or 0


def device_memory(state: RunState, ours_bytes: int) -> tuple[int, int]:
    """Bytes of the memory that the run trains in, and of others' use of it (GPU only); 0 where not known."""
    if state.plan.get("device") != "cuda":
        return state.device.get("memory_total_bytes") or 0, 0
    gpus = state.device.get("gpus") or []
    if not gpus:
        return 0, 0
    used, total = gpus[0].get("used_bytes") or 0, gpus[0].get("total_bytes") or 0
    others = used - ours_bytes
    # Below this it is the driver's own, not another person's.
    return total, others if others > 512 * 1024**2 else 0
