"""The data sources of a run in words: how much each gives to an epoch, and its losses. Nothing for a single source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tui.format import count_text, loss_text, share_text

if TYPE_CHECKING:
    from engine.run.telemetry.events import Evaluation, RunState

SOURCE_COLUMNS = ("source", "rows", "repeats", "share", "loss", "held-out")
"""Its name, its training rows, how often they come in an epoch, its share of an epoch's tokens, its training loss over
the last steps, and its held-out loss: the first and the newest."""


def source_rows(state: RunState, arrow: str = "→") -> list[tuple[str, ...]]:
    """A row of SOURCE_COLUMNS for each source."""
    measured = [each for each in state.evaluations if each.source_losses]
    return [
        (
            str(source["name"]),
            count_text(source["rows"]),
            f"{source['repeats']:.3g}",
            share_text(round(source["share"], 3)),
            loss_text(_at(state.source_losses, index)),
            _held_out(measured, index, arrow),
        )
        for index, source in enumerate(state.sources)
    ]


def waste_words(plan: Mapping[str, Any]) -> str:
    """How much of a step's room is empty: "2 % empty, by plain padding 61 %"; nothing for runs that did not tell."""
    wasted, padded = plan.get("wasted_share"), plan.get("wasted_share_padded")
    if wasted is None:
        return ""
    words = f"{share_text(round(wasted, 3))} empty"
    return f"{words}, by plain padding {share_text(round(padded, 3))}" if padded and padded > wasted else words


def _held_out(measured: list[Evaluation], index: int, arrow: str) -> str:
    losses = [_at(each.source_losses, index) for each in measured]
    told = [loss_text(loss) for loss in losses if loss is not None]
    if len(told) < 2:
        return told[0] if told else loss_text(None)
    return f"{told[0]} {arrow} {told[-1]}"


def _at(values: tuple[float | None, ...], index: int) -> float | None:
    return values[index] if index < len(values) else None
