"""A line chart whose x axis is fixed to the planned steps, so that a new point changes a cell or two."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from tui.format import compact_text, count_text
from tui.theme import Look
from tui.widgets.painted import Painted, right, spread
from tui.widgets.raster import Raster

LABEL_WIDTH = 6
SMOOTHING_SHARE = 0.007
"""The smoothed line forgets a value over this share of the planned steps."""
TINY = 1e-200
"""Differences below this are none."""
Point = tuple[float, float | None]
"""A step and its value; None where it was not a number, which is drawn as a gap."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A single measurement that stands out, such as a held-out loss."""

    step: float
    value: float
    kind: str = "during"
    """before, during or after: its glyph."""


@dataclass(frozen=True, slots=True)
class ChartData:
    """What a LineChart shows. `title` and `legend` are its first row's left and right end."""

    title: Text
    points: Sequence[Point]
    last_step: int
    marks: Sequence[Mark] = ()
    legend: Text | None = None
    smoothed: bool = False
    label: Callable[[float], str] | None = None
    """How the vertical axis is labelled; None for plain numbers with as many decimals as its steps need."""
    from_zero: bool = False


class LineChart(Painted):
    """Draws ChartData. Without points it says what it waits for."""

    DEFAULT_CSS = "LineChart { height: 1fr; width: 1fr; padding: 0 1; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None):
        super().__init__(id=id, classes=classes)
        self._data: ChartData | None = None

    def show(self, data: ChartData) -> None:
        self._data = data
        self.repaint()

    def paint(self, width: int, height: int) -> list[Text]:
        return render_chart(self._data, width, height, self.look) if self._data else []


def render_chart(data: ChartData, width: int, height: int, look: Look) -> list[Text]:
    """The chart as `height` lines of `width` cells: a title row, the plot, and the axis."""
    title = spread(data.title, data.legend or Text(), width, look)
    columns, rows = width - LABEL_WIDTH - 2, height - 2
    if columns < 8 or rows < 2:
        return [title]
    values = [value for _, value in data.points if value is not None and math.isfinite(value)]
    values += [mark.value for mark in data.marks]
    if not values:
        waiting = Text("no steps yet".center(columns)[:columns], style=look.dim)
        return [title, *[Text()] * (rows // 2), Text(" " * (LABEL_WIDTH + 2)).append_text(waiting)]
    low, high, ticks = axis_bounds(min(values), max(values), rows, data.from_zero)
    raster = Raster(columns, rows, look.ascii)
    last_step = max(data.last_step, 1)

    def place(step: float, value: float) -> tuple[int, int]:
        x = min(raster.width - 1, int(step / last_step * (raster.width - 1) + 0.5))
        return x, min(raster.height - 1, int((high - value) / (high - low) * (raster.height - 1) + 0.5))

    _draw(raster, data.points, place, look.trace if data.smoothed else look.accent, "." if data.smoothed else "*")
    if data.smoothed:
        _draw(raster, smooth(data.points, last_step * SMOOTHING_SHARE), place, look.accent, "*")
    for mark in data.marks:
        glyph = look.glyph("◇" if mark.kind == "before" else "◆", "B" if mark.kind == "before" else "o")
        raster.mark(*place(mark.step, mark.value), glyph, look.warn)
    tick_rows = {place(0, tick)[1] // (1 if look.ascii else 4): tick for tick in ticks}
    label_of = data.label or _number_label(ticks)
    lines = [title]
    for row in range(rows):
        label = label_of(tick_rows[row]) if row in tick_rows else ""
        line = Text(no_wrap=True).append(right(label, LABEL_WIDTH, look), style=look.dim)
        line.append(
            look.glyph(" ┤" if row in tick_rows else " │", " +" if row in tick_rows else " |"), style=look.faint
        )
        lines.append(line.append_text(raster.row(row)))
    return [*lines, _x_axis(last_step, columns, look)]


def axis_bounds(lowest: float, highest: float, rows: int, from_zero: bool = False) -> tuple[float, float, list[float]]:
    """A round range around the values, so that it seldom changes, and the values to label in `rows` rows."""
    if from_zero:
        lowest = min(0.0, lowest)
    span, size = highest - lowest, max(abs(lowest), abs(highest))
    if span <= size * 1e-9 or span < TINY:  # one value, as far as labels can tell
        span = size if size >= TINY else 1.0
        lowest, highest = lowest - span / 2, highest + span / 2
    wanted = max(2, min(6, rows // 2))
    raw = span / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((nice * power for nice in (1, 2, 2.5, 5, 10) if nice * power >= raw * 0.999), 10 * power)
    # Bounds are finer than the labels, so that little of the height is empty.
    bound = step / 4
    low, high = math.floor(lowest / bound + 1e-9) * bound, math.ceil(highest / bound - 1e-9) * bound
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return low, high, [step * index for index in range(first, last + 1)]


def _number_label(ticks: Sequence[float]) -> Callable[[float], str]:
    if max(map(abs, ticks), default=0) >= 10_000:
        return compact_text
    enough = (count for count in range(5) if all(abs(tick - round(tick, count)) < 1e-9 for tick in ticks))
    decimals = next(enough, 4)
    return lambda value: f"{value:.{decimals}f}"


def smooth(points: Sequence[Point], forget_steps: float) -> list[Point]:
    """An exponential average over steps that starts without bias; gaps stay gaps."""
    smoothed: list[Point] = []
    total = weight = 0.0
    previous = None
    for step, value in points:
        if value is None or not math.isfinite(value):
            smoothed.append((step, None))
            continue
        keep = math.exp(-(step - previous) / max(forget_steps, 1.0)) if previous is not None else 0.0
        total, weight = total * keep + value * (1 - keep), weight * keep + (1 - keep)
        previous = step
        smoothed.append((step, total / weight))
    return smoothed


def _draw(
    raster: Raster,
    points: Sequence[Point],
    place: Callable[[float, float], tuple[int, int]],
    style: str,
    character: str,
) -> None:
    before: tuple[int, int] | None = None
    for step, value in points:
        if value is None or not math.isfinite(value):
            before = None
            continue
        here = place(step, value)
        raster.line(before or here, here, style, character)
        before = here


def _x_axis(last_step: int, columns: int, look: Look) -> Text:
    left, middle = count_text(0), compact_text(last_step / 2)
    end = f"{count_text(last_step)} steps"
    axis = [" "] * (columns + 1)

    def put(text: str, at: int) -> None:
        axis[at : at + len(text)] = text

    put(left, 1)
    if columns > 40:
        put(middle, columns // 2 - len(middle) // 2)
    put(end, max(1, columns + 1 - len(end)))
    return Text(" " * (LABEL_WIDTH + 1) + "".join(axis[: columns + 1]), style=look.dim, no_wrap=True)
