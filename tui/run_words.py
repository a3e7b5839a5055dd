"""What happened to a run's memory, in words: its trial step, and what it gave up when memory ran out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tui.format import bytes_text, counted, difference_text

if TYPE_CHECKING:
    from engine.run.telemetry.events import RunState


def probe_words(probe: Mapping[str, Any]) -> str:
    """A `probe` event's fields: "the trial step on 2,048 tokens took 572 MiB of 591 MiB predicted (-3.2 %)"."""
    tried = f"the trial step on {counted(probe['tokens'], 'token')}"
    measured, predicted = probe["measured"], probe["predicted"]
    if measured is None:
        return f"{tried} could not be measured"
    words = f"{tried} took {bytes_text(measured)}"
    return f"{words} of {bytes_text(predicted)} predicted ({difference_text(measured, predicted)})"


def out_of_memory_words(state: RunState) -> str:
    """How often memory ran out; nothing where it never did."""
    times = len(state.ladder)
    often = {1: "once", 2: "twice"}.get(times, f"{times} times")
    return f"ran out of memory {often}" if times else ""


def adjusted_words(state: RunState) -> str:
    """The settings in force that are not as the run was asked: "micro-batch 2, accumulation 4"."""
    from tui.widgets.new_run.draft import SETTINGS

    known = {setting.field: setting for setting in SETTINGS}
    return ", ".join(
        f"{known[name].label} {known[name].show(value)}"
        if name in known
        else f"{name.rpartition('.')[2].replace('_', ' ')} {value}"
        for name, value in state.adjusted.items()
    )
