"""What the plan asks of the engine, in one value, so that tests can give it something else.

All but `price` block (they read files, probe devices or wait for a child) and are called from threads only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles.problem import Problem
from tui.widgets.new_run.places import Place

if TYPE_CHECKING:
    from engine.fit.replay import Replayed
    from engine.seal.ability import Ability
    from profiles.geometry import Geometry
    from profiles.hardware import Hardware
    from profiles.planner import Plan, Profile
    from profiles.settings import Settings
    from tui.plan_views import ViewRow

_ONE_CHILD = threading.Lock()
"""A replay beside the benchmark would slow it down, and be measured with it."""
RECENT_RUNS = 30
"""A run that is still live is among the newest."""
REPLAY_SECONDS = 90.0
"""A replay that takes longer is given up: the formula stands without it."""


def _hardware() -> Hardware:
    from engine.run.directory import runs_root
    from profiles.hardware import probe

    return probe(runs_root())


def _measure_speed(hardware: Hardware) -> bool:
    from engine.fit.rates import is_measured, measure_rates
    from engine.run.directory import list_runs
    from engine.run.liveness import liveness

    if is_measured(hardware) or any(liveness(run) == "live" for run in list_runs()[:RECENT_RUNS]):
        return False
    try:
        with _ONE_CHILD:
            measure_rates(hardware)
    except Problem:
        return False  # the catalogue's figures stand
    return is_measured(hardware)


def _ability() -> Ability:
    from tui.source import seal_ability

    return seal_ability()


def _find(path: Path) -> Geometry:
    from engine.fit.models import find_model

    return find_model(path)


def _plan(model: Path, hardware: Hardware) -> Plan:
    from engine.propose import gather_plan, plan_for

    return plan_for(gather_plan(model, (), None, hardware), {})


def _price(plan: Plan, values: Mapping[str, Any]) -> Profile:
    from profiles.planner import price

    return price(plan, values)


def _replay(geometry: Geometry, settings: Settings, cancelled: threading.Event) -> Replayed | None:
    from engine.fit.replay import replay

    with _ONE_CHILD:
        if cancelled.is_set():
            return None
        return replay(geometry, settings, timeout_seconds=REPLAY_SECONDS, cancelled=cancelled)


def _models(hardware: Hardware) -> Iterator[ViewRow]:
    from tui.plan_views import trainable_models

    return trainable_models(hardware)


def _cards(geometry: Geometry, hardware: Hardware) -> Iterator[ViewRow]:
    from tui.plan_views import enough_cards

    return enough_cards(geometry, hardware)


def _places() -> Sequence[Place]:
    """Models on this machine, then those of the catalogue, under their names."""
    from profiles.model_catalogue import catalogue_models
    from tui.widgets.new_run.places import former_specs, model_places

    named = [Place(Path(model.name), model.name, "catalogue") for model in catalogue_models()]
    return [*model_places(former_specs()), *named]


@dataclass(frozen=True, slots=True)
class PlanSources:
    hardware: Callable[[], Hardware] = _hardware
    """This machine, now."""
    measure_speed: Callable[[Hardware], bool] = _measure_speed
    """Measure this machine's speed if that was not done and no run would be disturbed: some seconds. Whether it was."""
    ability: Callable[[], Ability] = _ability
    """What this machine can hold of a seal; tried in a child process."""
    places: Callable[[], Sequence[Place]] = _places
    """Models to plan for, those of the catalogue included."""
    find: Callable[[Path], Geometry] = _find
    """A model's shape. Raises Problem."""
    plan: Callable[[Path, Hardware], Plan] = _plan
    """A model's plan without data. Raises Problem."""
    price: Callable[[Plan, Mapping[str, Any]], Profile] = _price
    """One profile with other values; reads nothing and takes well under a frame."""
    replay: Callable[[Geometry, Settings, threading.Event], Replayed | None] = _replay
    """Count one step's tensors in a child; None when the event was set meanwhile. Raises Problem."""
    models: Callable[[Hardware], Iterator[ViewRow]] = _models
    """What could be trained on a machine, a row a model."""
    cards: Callable[[Geometry, Hardware], Iterator[ViewRow]] = _cards
    """What could train a model, a row a card."""
