"""The planner: every way to train a model on a machine, priced, and a short ranked list of those worth offering.

`plan` searches (profiles.planning.search) what the frame leaves open (profiles.planning.frame) and picks winners
(profiles.planning.choice): the best quality, the fastest, the longest context, the leanest, and one per method, with
what is missing where a method does not fit. `price` asks for one profile, with values that a person changed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from profiles.geometry import Geometry
from profiles.hardware import Hardware
from profiles.learnt import Learnt
from profiles.planning.budget import free_bytes, others_bytes
from profiles.planning.choice import Choice
from profiles.planning.frame import Frame, Job
from profiles.planning.profile import RECIPE_PREFIX, Plan, Profile
from profiles.planning.recipes import Recipe, fitted_fields
from profiles.planning.search import KnownEstimates, Pricing
from profiles.planning.words import size_text
from profiles.speed import Rates, rates_of

__all__ = ["Job", "Plan", "Profile", "ladder", "plan", "price", "price_recipe", "reserve_note"]

# Of the built-in recipes; all are found by name.
_BUILT_IN_SHOWN = 2
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def plan(
    geometry: Geometry,
    hardware: Hardware,
    job: Job = Job(),  # noqa: B008
    asked: Mapping[str, Any] = _NOTHING,
    rates: Rates | None = None,
    learnt: Learnt | None = None,
    recipes: Sequence[Recipe] = (),
) -> Plan:
    """Every way to train `geometry` for `job` on `hardware` that is worth offering.

    `asked` holds what a person fixed, by dotted RunSpec field; it stays as it is in every profile. `learnt` is what
    was measured here before (profiles.learnt). Of `recipes` those made for this job become profiles, too. Raises
    Problem for an asked value that this model cannot have.
    """
    started = time.perf_counter()
    frame = Frame(geometry, hardware, job, asked)
    pricing = Pricing(geometry, hardware, rates or rates_of(hardware), learnt)
    choice = Choice(frame, pricing)
    searched = choice.profiles()
    profiles = (*searched, *_cooked_ones(recipes, frame, pricing, searched))
    return Plan(
        geometry=geometry,
        hardware=hardware,
        job=job,
        profiles=profiles,
        budget_bytes=profiles[0].budget_bytes,
        free_bytes=free_bytes(hardware),
        points_priced=pricing.count,
        grid_points=choice.grid_points,
        seconds=time.perf_counter() - started,
        notes=(reserve_note(hardware, profiles[0]),),
        asked=dict(asked),
        rates=pricing.rates,
        learnt=learnt,
    )


def price(plan: Plan, values: Mapping[str, Any], name: str = "yours") -> Profile:
    """One profile with exactly these field values; fields that are not in `values` are chosen around them.

    Leave train.gradient_accumulation out to keep the rows of a step, and optimizer.learning_rate to have it follow the
    method. Reads no file. Raises Problem as `plan` does.
    """
    frame = Frame(plan.geometry, plan.hardware, plan.job, {**plan.asked, **values})
    pricing = Pricing(plan.geometry, plan.hardware, plan.rates or rates_of(plan.hardware), plan.learnt)
    return Choice(frame, pricing).one(name)


def price_recipe(plan: Plan, recipe: Recipe) -> Profile:
    """The profile that a recipe makes of the plan's job, whether it was made for it or not."""
    frame = Frame(plan.geometry, plan.hardware, plan.job, plan.asked)
    pricing = Pricing(plan.geometry, plan.hardware, plan.rates or rates_of(plan.hardware), plan.learnt)
    return _cooked(recipe, frame, pricing)


def ladder(
    geometry: Geometry,
    hardware: Hardware,
    job: Job = Job(),  # noqa: B008
    asked: Mapping[str, Any] = _NOTHING,
    rates: Rates | None = None,
    known: KnownEstimates | None = None,
) -> tuple[Profile, ...]:
    """One profile per method (full, partial, lora, qlora): the best that fits, else the leanest with what is missing.

    `known` are estimates of the same geometry, used and added to.
    """
    pricing = Pricing(geometry, hardware, rates or rates_of(hardware), known=known)
    choice = Choice(Frame(geometry, hardware, job, asked), pricing)
    return tuple(choice.of_method(method) for method in choice.methods)


def _cooked_ones(recipes: Sequence[Recipe], frame: Frame, pricing: Pricing, shown: Sequence[Profile]) -> list[Profile]:
    """The recipes made for this job: a person's own, and the first built-in ones that bring something new and fit."""
    found: list[Profile] = []
    settings = {profile.settings for profile in shown}
    built_in = 0
    for recipe in recipes:
        known_job = frame.job.rows > 0 and built_in < _BUILT_IN_SHOWN
        if not recipe.applies(frame.geometry, frame.hardware, frame.job) or (recipe.built_in and not known_job):
            continue
        profile = _cooked(recipe, frame, pricing)
        if recipe.built_in and (not profile.fits or profile.settings in settings):
            continue
        settings.add(profile.settings)
        built_in += recipe.built_in
        found.append(profile)
    return found


def _cooked(recipe: Recipe, frame: Frame, pricing: Pricing) -> Profile:
    """The best profile with the recipe's fields, and the person's over them."""
    fields = fitted_fields(recipe, frame.asked, frame.geometry)
    own = Frame(frame.geometry, frame.hardware, frame.job, fields, recipe.rows_per_step)
    profile = Choice(own, pricing).one(f"{RECIPE_PREFIX}{recipe.name}")
    reasons = dict(profile.reasons)
    for name in recipe.fields:
        if name not in frame.asked:
            reasons[name] = f"as the recipe {recipe.name} has it"
    words = [f"{recipe.description.rstrip('.')}." if recipe.description else f"The recipe {recipe.name}."]
    words += [f"From: {recipe.source.rstrip('.')}."] if recipe.source else []
    why = (*words, profile.why[-1]) if profile.fits else (*profile.why, *words[:1])
    return replace(profile, reasons=reasons, why=why)


def reserve_note(hardware: Hardware, profile: Profile) -> str:
    """Why the budget is less than what is free."""
    error = f"{100 * profile.estimate.error_share:.0f} %"
    return (
        f"{size_text(free_bytes(hardware))} are free; {size_text(others_bytes(hardware))} are left for other programs, "
        f"and {size_text(profile.budget_bytes)} may be planned with, since a prediction may be {error} too low."
    )
