"""The two wider looks at a plan: what could be trained on a machine, and which card would train a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiles.problem import Problem
from tui.format import bytes_text, compact_text
from tui.plan_words import METHODS, device_bytes

if TYPE_CHECKING:
    from profiles.geometry import Geometry
    from profiles.hardware import Hardware
    from profiles.planner import Profile
    from profiles.planning.search import KnownEstimates

MODEL_FACTS = ("size", "licence")
CARD_FACTS = ("memory",)
HERE = "this machine"


@dataclass(frozen=True, slots=True)
class ViewRow:
    """A model or a card, with the best profile of each method; those that do not fit are there too."""

    name: str
    facts: tuple[str, ...]
    profiles: Mapping[str, Profile]
    """By method; none where the model cannot have what was asked, such as rows longer than its context."""
    hardware: Hardware | None = None
    """The card's machine, in a view of cards."""

    @property
    def fits(self) -> tuple[str, ...]:
        """The methods that fit."""
        return tuple(method for method in METHODS if method in self.profiles and self.profiles[method].fits)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: the methods with what each takes."""
        return {
            "name": self.name,
            "fits": list(self.fits),
            "methods": {method: profile.as_dict() for method, profile in self.profiles.items()},
        }


def trainable_models(hardware: Hardware, asked: Mapping[str, Any] | None = None) -> Iterator[ViewRow]:
    """Each model of the catalogue on `hardware`, the smallest first. `asked` fixes settings, by dotted field."""
    from profiles.model_catalogue import catalogue_models

    for model in sorted(catalogue_models(), key=lambda each: each.parameters):
        profiles = _by_method(model.geometry(), hardware, asked or {})
        yield ViewRow(model.name, (compact_text(model.parameters), model.licence), profiles)


def enough_cards(geometry: Geometry, hardware: Hardware, asked: Mapping[str, Any] | None = None) -> Iterator[ViewRow]:
    """This machine, then each card of the catalogue with nothing else on it, by memory."""
    from profiles.hardware_file import hypothetical
    from profiles.machine.gpu_catalogue import all_gpus
    from profiles.planning.search import KnownEstimates

    asked, known = asked or {}, KnownEstimates()
    yield ViewRow(HERE, (bytes_text(device_bytes(hardware)),), _by_method(geometry, hardware, asked), hardware)
    for card in sorted(all_gpus(), key=lambda each: (each.memory_bytes, each.bandwidth_bytes_per_second)):
        machine = hypothetical(card.name)
        profiles = _by_method(geometry, machine, asked, known)
        yield ViewRow(machine.host, (bytes_text(card.memory_bytes),), profiles, machine)


def smallest(rows: Sequence[ViewRow]) -> dict[str, ViewRow]:
    """For each method that fits on any of the cards, the first card that it fits on."""
    cards = [row for row in rows if row.name != HERE]
    found = {method: next((row for row in cards if method in row.fits), None) for method in METHODS}
    return {method: row for method, row in found.items() if row is not None}


def _by_method(
    geometry: Geometry,
    hardware: Hardware,
    asked: Mapping[str, Any],
    known: KnownEstimates | None = None,
) -> dict[str, Profile]:
    from engine.fit.rates import cached_rates
    from profiles.planner import Job, ladder
    from profiles.speed import rates_of

    rates = rates_of(hardware, cached_rates(hardware))
    try:
        return {profile.method: profile for profile in ladder(geometry, hardware, Job(), asked, rates, known)}
    except Problem:
        return {}
