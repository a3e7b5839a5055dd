"""Which of all points are offered: the winners of one frame, and what is missing where a method does not fit.

Each winner is the greatest of all fitting points in a fixed order, so more memory never makes one worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from profiles.memory import trainable_elements
from profiles.planning.frame import METHODS, Frame
from profiles.planning.profile import Profile
from profiles.planning.quality import SOUND, Variant
from profiles.planning.search import Point, Priced, Pricing, Search, largest_length
from profiles.planning.values import values_and_reasons
from profiles.planning.words import capitalised, missing_text, saving_steps, unquantised_text, why_profile
from profiles.settings import Method, Settings


class Choice:
    """Picks the winners of one frame."""

    def __init__(self, frame: Frame, pricing: Pricing):
        self.frame, self.pricing = frame, pricing
        self.variants = frame.variants()
        self.searches = {length: Search(pricing, frame.space(length)) for length in frame.lengths()}
        self.search = self.searches[frame.length]
        self.methods = [method for method in METHODS if any(each.method == method for each in self.variants)]

    def profiles(self) -> tuple[Profile, ...]:
        winners: dict[Settings, tuple[Priced, list[str]]] = {}

        def offer(title: str, priced: Priced | None) -> None:
            if priced is not None:
                winners.setdefault(priced.point.settings, (priced, []))[1].append(title)

        offer("best quality", self._best(self.variants))
        offer("fastest", self._fastest())
        offer("longest context", self._longest())
        offer("leanest", self._leanest())
        shown = {priced.point.settings.method for priced, titles in winners.values() if titles != ["leanest"]}
        for method in self.methods:
            if method not in shown:
                offer(method, self._best(self._of(method)))
        fitting = [self._fitting(priced, tuple(titles)) for priced, titles in winners.values()]
        fit = {profile.method for profile in fitting}
        short = [self._short(method, method) for method in self.methods if method not in fit]
        return (*fitting, *sorted(short, key=lambda each: each.peak_bytes - each.budget_bytes))

    def one(self, name: str) -> Profile:
        """The best point, or the leanest when none fits."""
        best = self._best(self.variants)
        if best is not None:
            return self._fitting(best, (name,))
        return self._short(_leanest(self.variants, self.search).variant.method, name)

    def of_method(self, method: Method) -> Profile:
        best = self._best(self._of(method))
        return self._fitting(best, (method,)) if best is not None else self._short(method, method)

    def _of(self, method: Method) -> list[Variant]:
        return [each for each in self.variants if each.method == method]

    def _best(self, variants: Sequence[Variant], search: Search | None = None) -> Priced | None:
        """The fastest point of the best variant that fits; `variants` come best first."""
        search = search or self.search
        possible = _possible_methods(variants, search)
        for variant in variants:
            if variant.method in possible and search.leanest(variant).fits:
                return search.fastest(variant)
        return None

    def _fastest(self) -> Priced | None:
        """The fastest point of a sound variant; of those within 5 % of each other the better one."""
        sound = [each for each in self.variants if each.quality >= SOUND]
        possible = _possible_methods(sound, self.search)
        hopes = [(self.search.fastest_possible(each), each) for each in sound if each.method in possible]
        best: Priced | None = None
        for hope, variant in sorted(hopes, key=lambda each: -each[0]):
            if best is not None and _pace(hope) < _pace(best.tokens_per_second):
                break
            if self.search.leanest(variant).fits and (found := self.search.fastest(variant)) is not None:
                best = found if best is None else max(best, found, key=_pace_then_quality)
        return best

    @property
    def grid_points(self) -> int:
        """Points of the whole grid: those outside the search's staircases are too large or slower than one on them."""
        return len(self.variants) * sum(search.space.points for search in self.searches.values())

    def _longest(self) -> Priced | None:
        """The best point at the longest rows that any sound variant fits."""
        searches, sound = self.searches, [each for each in self.variants if each.quality >= SOUND]
        if len(searches) == 1:
            return None
        longest = largest_length(list(searches), lambda length: bool(_possible_methods(sound, searches[length])))
        return None if longest is None else self._best(sound, searches[longest])

    def _leanest(self) -> Priced | None:
        leanest = _leanest(self.variants, self.search)
        return self.pricing.speed(leanest) if leanest.fits else None

    def _fitting(self, priced: Priced, titles: tuple[str, ...]) -> Profile:
        why = why_profile(self.frame.geometry, priced, titles, self.frame.job.tokens, self.frame.best_rank)
        return self._profile(titles, priced, why, "")

    def _short(self, method: Method, name: str) -> Profile:
        """The leanest point of a method that does not fit, with what is missing."""
        variants = self._of(method)
        leanest = _leanest(variants, self.search)
        plain = self.search.plainest(variants[0])
        missing = missing_text(saving_steps(self.pricing, leanest, plain))
        why = (f"{capitalised(missing)}.", unquantised_text(self.frame.geometry, leanest.settings))
        return self._profile((name,), self.pricing.speed(leanest), tuple(each for each in why if each), missing)

    def _profile(self, titles: tuple[str, ...], priced: Priced, why: tuple[str, ...], missing: str) -> Profile:
        frame, settings = self.frame, priced.point.settings
        values, reasons = values_and_reasons(frame, settings, fits=not missing)
        return Profile(
            name=titles[0],
            settings=settings,
            values=values,
            reasons=reasons,
            estimate=priced.point.estimate,
            budget_bytes=priced.point.budget_bytes,
            speed=priced.speed,
            seconds=self._seconds(priced),
            trainable_parameters=sum(trainable_elements(frame.geometry, settings)),
            why=why,
            missing=missing,
            titles=titles,
        )

    def _seconds(self, priced: Priced) -> float | None:
        """Time of all steps, from the tokens of the data and the share of each row that they fill, and of the base's
        way over the rows before them."""
        frame, settings, speed = self.frame, priced.point.settings, priced.speed
        if not frame.job.tokens:
            return None
        rows = settings.micro_batch * settings.gradient_accumulation
        # A step's time is that of rows whose every sequence is as long as may be.
        filled = frame.row_length(settings.sequence_length) / (settings.sequence_length * settings.sequences)
        steps = frame.steps(settings.sequence_length, rows) * filled * speed.seconds_per_step
        return steps + speed.referring_share * frame.job.tokens / speed.tokens_per_second


def _smallest(variants: Sequence[Variant]) -> list[Variant]:
    """Of one method's variants, the best first: those of the last one's rank, targets and depth, which learn the least
    and so take the least, with whatever optimizer."""
    last = variants[-1]
    shape = (last.rank, last.targets, last.trained_layers)
    return [each for each in variants if (each.rank, each.targets, each.trained_layers) == shape]


def _leanest(variants: Sequence[Variant], search: Search) -> Point:
    """The point that takes the least: one that fits, where any does."""
    by_method = [[each for each in variants if each.method == method] for method in METHODS]
    points = [search.leanest(each) for group in by_method if group for each in _smallest(group)]
    return min(points, key=lambda point: (not point.fits, point.peak_bytes))


def _possible_methods(variants: Sequence[Variant], search: Search) -> set[Method]:
    """The methods that fit at all."""
    by_method = {each.method: [other for other in variants if other.method == each.method] for each in variants}
    return {
        method
        for method, group in by_method.items()
        if any(search.leanest(each).fits for each in reversed(_smallest(group)))
    }


def _pace(tokens_per_second: float) -> int:
    """Speeds in steps of 5 %: closer ones are the same to a person, and to what an estimate can tell."""
    return math.floor(math.log(tokens_per_second, 1.05))


def _pace_then_quality(priced: Priced) -> tuple[int, float, float, int]:
    return _pace(priced.tokens_per_second), priced.quality, priced.tokens_per_second, -priced.point.peak_bytes
