"""The loss curve within bounds: of any number of steps, at most SERIES_LIMIT points, and no spike lost.

The steps are divided into spans of `stride` steps, a power of two. Of each span stay the first loss that is not a
number, the lowest loss, the highest loss and the highest gradient norm; with the very first and the newest step.
What stays depends on the steps alone, not on when they were read: extremes of extremes are extremes.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.run.telemetry.events import SERIES_LIMIT, StepPoint

KEPT_PER_SPAN = 4
_MOST_SPANS = SERIES_LIMIT // KEPT_PER_SPAN - 1  # the rest is for the first and the newest step


def stride_for(first_step: int, last_step: int) -> int:
    """Steps in a span when the series runs from `first_step` to `last_step`; 1 when all of them can be kept."""
    if last_step - first_step + 1 <= SERIES_LIMIT:
        return 1
    stride = 2
    while last_step // stride - first_step // stride + 1 > _MOST_SPANS:
        stride *= 2
    return stride


class Series:
    """Steps in rising order, thinned as they come."""

    def __init__(self, points: Sequence[StepPoint] = ()):
        """Begin with nothing, or with what another series kept."""
        self._stride = 1
        self._closed: list[StepPoint] = []
        self._open: list[StepPoint] = []  # the span that still grows
        self._first: StepPoint | None = None
        self._newest: StepPoint | None = None
        self._restart(list(points))

    def add(self, point: StepPoint) -> None:
        """Add a step; one that is not after the newest takes the place of it and of all after it."""
        if self._newest is not None and point.step <= self._newest.step:
            self.drop_after(point.step - 1)
        if self._first is None:
            self._first = point
        stride = stride_for(self._first.step, point.step)
        if stride != self._stride:
            self._stride = stride
            self._divide(self._closed + self._open)
        if self._open and self._open[-1].step // stride != point.step // stride:
            self._closed += self._open
            self._open = []
        self._open = extremes([*self._open, point]) if stride > 1 else [point]
        self._newest = point

    def drop_after(self, step: int) -> None:
        """Forget the steps after `step`: a resumed run does them again."""
        self._restart([point for point in self.points() if point.step <= step])

    def points(self) -> tuple[StepPoint, ...]:
        """What is kept, in order of steps, never more than SERIES_LIMIT."""
        points = self._closed + self._open
        if self._first is not None and points[0].step != self._first.step:
            points.insert(0, self._first)
        if self._newest is not None and points[-1].step != self._newest.step:
            points.append(self._newest)
        return tuple(points)

    def _restart(self, points: list[StepPoint]) -> None:
        self._first = points[0] if points else None
        self._newest = points[-1] if points else None
        self._stride = stride_for(points[0].step, points[-1].step) if points else 1
        self._divide(points)

    def _divide(self, points: list[StepPoint]) -> None:
        spans: dict[int, list[StepPoint]] = {}
        for point in points:
            spans.setdefault(point.step // self._stride, []).append(point)
        *closed, self._open = [extremes(span) for span in spans.values()] or [[]]
        self._closed = [point for span in closed for point in span]


def extremes(points: list[StepPoint]) -> list[StepPoint]:
    """Of one span, the points that stay; of equals the first."""
    numbered = [point for point in points if point.loss is not None]
    kept = [point for point in points if point.loss is None][:1]
    if numbered:
        kept += [min(numbered, key=_loss), max(numbered, key=_loss)]
    if normed := [point for point in points if point.gradient_norm is not None]:
        kept.append(max(normed, key=_gradient_norm))
    return sorted({point.step: point for point in kept}.values(), key=lambda point: point.step)


def _loss(point: StepPoint) -> float:
    assert point.loss is not None
    return point.loss


def _gradient_norm(point: StepPoint) -> float:
    assert point.gradient_norm is not None
    return point.gradient_norm
