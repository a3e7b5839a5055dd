"""The monitor's charts: which series of a RunState each draws, with its title and its legend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.text import Text

from engine.run.telemetry.events import RunState, StepPoint
from tui.format import compact_text, learning_rate_text, loss_text, rate_text
from tui.theme import Look
from tui.widgets.line_chart import ChartData, Mark


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that each step has."""

    name: str
    value: Callable[[StepPoint], float | None]
    text: Callable[[float | None], str]
    label: Callable[[float], str] | None
    smoothed: bool = True
    from_zero: bool = True


def _axis_rate(value: float) -> str:
    return learning_rate_text(value) if value else "0"


METRICS = (
    Metric("loss", lambda point: point.loss, loss_text, None, from_zero=False),
    Metric("learning rate", lambda point: point.learning_rate, learning_rate_text, _axis_rate, smoothed=False),
    Metric("gradient norm", lambda point: point.gradient_norm, loss_text, None),
    Metric("speed", lambda point: point.tokens_per_second, rate_text, compact_text),
)


def chart_data(state: RunState, metric: Metric, look: Look) -> ChartData:
    """What the chart of `metric` shows now."""
    points = [(point.step, metric.value(point)) for point in state.steps]
    newest = points[-1][1] if points else None
    title = Text(no_wrap=True).append(metric.name, style=look.dim)
    if points:
        text = metric.text(newest) if newest is not None else "nan"
        title.append(f"  {text}", style=look.bad if newest is None else look.strong)
    marks: tuple[Mark, ...] = ()
    legend = None
    if metric.name == "loss":
        measured = [each for each in state.evaluations if each.held_out_loss is not None]
        marks = tuple(Mark(each.step, each.held_out_loss or 0.0, each.when) for each in measured)
        if measured:
            legend = Text(no_wrap=True).append(look.glyph("◆", "o"), style=look.warn)
            legend.append(" held-out ", style=look.dim).append(loss_text(measured[-1].held_out_loss))
            if (before := state.evaluation("before")) and len(measured) > 1:
                legend.append(look.glyph("  ◇", "  B"), style=look.warn).append(" before ", style=look.dim)
                legend.append(loss_text(before.held_out_loss))
    return ChartData(
        title=title,
        points=points,
        last_step=max(state.planned_steps or 1, state.step),
        marks=marks,
        legend=legend,
        smoothed=metric.smoothed,
        label=metric.label,
        from_zero=metric.from_zero,
    )
