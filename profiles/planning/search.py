"""The search: for each way of training, the fastest settings whose peak fits, found without pricing every point.

A point is a variant (method, optimizer, rank, targets, layers) with a recompute mode, a micro-batch and a loss chunk.
A peak grows with the micro-batch, falls with recomputing more and with smaller chunks, and speed goes the other way;
so along the modes, from the fastest to the leanest, the largest micro-batch that fits only grows, and every point
outside that staircase is either too large or slower than one on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from profiles.geometry import Geometry
from profiles.hardware import Hardware
from profiles.learnt import Learnt, device_name
from profiles.memory import MemoryEstimate, estimate
from profiles.planning.budget import budget_bytes, host_fits
from profiles.planning.quality import Variant
from profiles.settings import Settings
from profiles.speed import Rates, SpeedEstimate, estimate_speed

Recompute = tuple[int, bool]
"""(gradient_checkpointing, offload_checkpoints)"""

KnownEstimates = dict[tuple[Settings, tuple[int, int] | None], MemoryEstimate]
"""By settings and the GPU's compute capability, of one geometry."""

_GPU_RECOMPUTE: tuple[Recompute, ...] = ((0, False), (4, False), (3, False), (2, False), (1, False), (1, True))


@dataclass(frozen=True, slots=True)
class Point:
    """Settings and what they cost."""

    variant: Variant
    settings: Settings
    estimate: MemoryEstimate
    budget_bytes: int
    fits: bool

    @property
    def peak_bytes(self) -> int:
        return self.estimate.peak_bytes


@dataclass(frozen=True, slots=True)
class Priced:
    """A point that can be offered, with its speed."""

    point: Point
    speed: SpeedEstimate

    @property
    def quality(self) -> float:
        return self.point.variant.quality

    @property
    def tokens_per_second(self) -> float:
        return self.speed.tokens_per_second


class Pricing:
    """Prices settings on one machine and counts how many.

    `learnt` corrects estimates by what was measured. `known` are uncorrected estimates of the same geometry, which
    are used and added to: several machines ask for much the same.
    """

    def __init__(
        self,
        geometry: Geometry,
        hardware: Hardware,
        rates: Rates,
        learnt: Learnt | None = None,
        known: KnownEstimates | None = None,
    ):
        self.geometry, self.hardware, self.rates, self.learnt = geometry, hardware, rates, learnt
        self.known = known
        self.device = device_name(hardware)
        self.capability = hardware.gpus[0].capability if hardware.gpus else None
        self.count = 0
        self._budgets: dict[float, int] = {}

    def price(self, variant: Variant, settings: Settings) -> Point:
        found = self._estimate(settings)
        if self.learnt is not None:
            found = self.learnt.adjust(found, self.geometry, settings, self.device)
        budget = self._budgets.get(found.error_share)
        if budget is None:
            budget = self._budgets[found.error_share] = budget_bytes(self.hardware, found.error_share)
        fits = found.peak_bytes <= budget and host_fits(self.hardware, found)
        return Point(variant, settings, found, budget, fits)

    def _estimate(self, settings: Settings) -> MemoryEstimate:
        key = (settings, self.capability)
        if self.known is not None and (found := self.known.get(key)) is not None:
            return found
        self.count += 1
        found = estimate(self.geometry, settings, self.capability)
        if self.known is not None:
            self.known[key] = found
        return found

    def speed(self, point: Point) -> Priced:
        return Priced(point, estimate_speed(self.geometry, point.settings, self.rates))


@dataclass(frozen=True, slots=True)
class Space:
    """What may be chosen around a variant. `micro_batches` ascend; chunks and recompute go from fast to lean."""

    base: Settings
    micro_batches: tuple[int, ...]
    accumulations: tuple[int, ...]
    """One for each micro-batch: their product is the rows of a step."""
    recompute: tuple[Recompute, ...]
    chunks: tuple[int, ...]

    @property
    def points(self) -> int:
        """Points of one variant in the whole grid."""
        return len(self.micro_batches) * len(self.recompute) * len(self.chunks)


class Search:
    """Asks `pricing` for points of a space; every answer is kept."""

    def __init__(self, pricing: Pricing, space: Space):
        self.pricing, self.space = pricing, space
        self._points: dict[tuple[Variant, Recompute, int, int], Point] = {}
        self._fastest: dict[Variant, Priced | None] = {}

    def leanest(self, variant: Variant) -> Point:
        """The point of `variant` that takes the least."""
        space = self.space
        # Any mode may be the leanest where there are hardly any layers to recompute, and the whole step at once where
        # its activations are less than the gradients that several micro-batches add up. On a CPU any micro-batch may:
        # its heap keeps holes around what recomputing layers keep, up to a size.
        count = len(space.micro_batches)
        indices = range(count) if space.base.device == "cpu" else {0, count - 1 if space.accumulations[-1] == 1 else 0}
        points = [self._point(variant, mode, each, space.chunks[-1]) for mode in space.recompute for each in indices]
        return min(points, key=lambda point: point.peak_bytes)

    def plainest(self, variant: Variant) -> Point:
        """`variant` with nothing done to save memory but one row at a time."""
        return self._point(variant, self.space.recompute[0], 0, self.space.chunks[0])

    def fastest(self, variant: Variant) -> Priced | None:
        """The fastest point of `variant` that fits, the leaner of equals; None when none fits."""
        if variant not in self._fastest:
            points = [point for chunk in self.space.chunks for point in self._staircase(variant, chunk)]
            self._fastest[variant] = max(map(self.pricing.speed, points), key=_speed_then_room, default=None)
        return self._fastest[variant]

    def fastest_possible(self, variant: Variant) -> float:
        """Tokens/s that no point of `variant` exceeds."""
        space = self.space
        settings = self.settings(variant, space.recompute[0], len(space.micro_batches) - 1, space.chunks[0])
        return estimate_speed(self.pricing.geometry, settings, self.pricing.rates).tokens_per_second

    def _staircase(self, variant: Variant, chunk: int) -> Iterable[Point]:
        """For each recompute mode the largest micro-batch that fits, while it still grows."""
        top = len(self.space.micro_batches) - 1
        largest = -1
        for mode in self.space.recompute:
            found = self._largest(variant, mode, chunk, largest)
            if found is None:
                continue
            largest, point = found
            yield point
            if largest == top:
                return

    def _largest(self, variant: Variant, mode: Recompute, chunk: int, known: int) -> tuple[int, Point] | None:
        """The largest micro-batch, by index, above `known` that fits with `mode`."""
        top = len(self.space.micro_batches) - 1
        # Alone, since a single micro-batch a step has no gradients to add up and may fit where half of it does not.
        point = self._point(variant, mode, top, chunk)
        if point.fits:
            return top, point
        best: tuple[int, Point] | None = None
        low, high = known + 1, top - 1
        while low <= high:
            middle = (low + high) // 2
            point = self._point(variant, mode, middle, chunk)
            if point.fits:
                best, low = (middle, point), middle + 1
            else:
                high = middle - 1
        return best

    def _point(self, variant: Variant, mode: Recompute, index: int, chunk: int) -> Point:
        key = (variant, mode, index, chunk)
        point = self._points.get(key)
        if point is None:
            point = self._points[key] = self.pricing.price(variant, self.settings(*key))
        return point

    def settings(self, variant: Variant, mode: Recompute, index: int, chunk: int) -> Settings:
        """One point of the space; `index` is that of a micro-batch."""
        changes: dict[str, Any] = variant.applied()
        return replace(
            self.space.base,
            micro_batch=self.space.micro_batches[index],
            gradient_accumulation=self.space.accumulations[index],
            gradient_checkpointing=mode[0],
            offload_checkpoints=mode[1],
            loss_chunk=chunk,
            **changes,
        )


def recompute_modes(device: str) -> tuple[Recompute, ...]:
    """From the fastest to the leanest. A CPU's checkpoints are in RAM already."""
    return _GPU_RECOMPUTE if device == "cuda" else _GPU_RECOMPUTE[:-1]


def divisors(rows: int, limit: int) -> tuple[int, ...]:
    """Micro-batches that `rows` can be cut into evenly, up to `limit`, ascending."""
    return tuple(size for size in range(1, min(rows, limit) + 1) if rows % size == 0) or (1,)


def largest_length(lengths: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The last of the ascending `lengths` that fits, by bisection; None when not even the first does."""
    low, high, best = 0, len(lengths) - 1, None
    while low <= high:
        middle = (low + high) // 2
        if fits(lengths[middle]):
            best, low = lengths[middle], middle + 1
        else:
            high = middle - 1
    return best


def _speed_then_room(priced: Priced) -> tuple[float, int]:
    return priced.tokens_per_second, -priced.point.peak_bytes
