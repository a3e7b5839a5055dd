"""A complete RunSpec for a model, data and a machine, each value with its reason, and the memory it will take.

What is decided is the planner's (profiles.planner); here is what goes in (files, read once by `gather`) and what comes
out (a spec). Whatever a person set themselves (`overrides`) stays as it is, and the rest is fitted around it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.data.preview import DataPreview
from engine.data.shapes import KIND_WORDS, objective_for
from engine.fit.memory_rows import load_learnt
from engine.fit.rates import cached_rates
from engine.inputs import Data, Inputs, read_data, read_inputs, section_of
from engine.job import job_of, part_of
from engine.recipes import usable_recipes
from engine.spec import RunSpec, SourceSection, parse_spec, resolve_paths
from profiles import planner
from profiles.geometry import Geometry
from profiles.hardware import Hardware
from profiles.learnt import Learnt, device_name
from profiles.memory import MemoryEstimate, estimate
from profiles.planner import Job, Plan, Profile
from profiles.planning.budget import budget_bytes as budget_for_error
from profiles.planning.recipes import Recipes
from profiles.planning.settings_of_spec import dotted, nested, settings_from
from profiles.problem import Problem
from profiles.settings import Settings
from profiles.speed import Rates, rates_of

# What a person chose to be read, which is no question of settings.
_INPUTS = ("name", "model.path", "data.train", "data.held_out")
# Error of a prediction that is not at hand: what most estimates on a GPU are good for.
_USUAL_ERROR_SHARE = 0.1


@dataclass(frozen=True)
class Gathered:
    """Everything a plan is made of, read once."""

    model: Path
    train: tuple[SourceSection, ...]
    held_out: SourceSection | None
    inputs: Inputs
    hardware: Hardware
    job: Job
    rates: Rates
    learnt: Learnt
    recipes: Recipes

    @property
    def geometry(self) -> Geometry:
        return self.inputs.geometry

    @property
    def previews(self) -> tuple[DataPreview, ...]:
        """Of the training files, then of the held-out file."""
        return self.inputs.previews


@dataclass(frozen=True)
class Proposal:
    """A spec ready to launch. `reasons` has one sentence per decided field ("train.epochs")."""

    spec: RunSpec
    reasons: Mapping[str, str]
    estimate: MemoryEstimate
    budget_bytes: int
    geometry: Geometry
    previews: tuple[DataPreview, ...]
    """Of the training files, then of the held-out file if there is one."""
    plan: Plan
    profile: Profile

    @property
    def fits(self) -> bool:
        return self.profile.fits


def gather(model: Path, train: Sequence[Data], held_out: Data | None, hardware: Hardware) -> Gathered:
    """Read what is to be trained and on what. Raises Problem for a model or data that cannot be trained on."""
    return _gathered(model, train, held_out, hardware, read_inputs(model, train, held_out))


def gather_plan(model: str | Path, train: Sequence[Data], held_out: Data | None, hardware: Hardware) -> Gathered:
    """As `gather`, for planning alone: the model may be a config.json without weights or a catalogue's name, and data
    may be absent. Raises Problem for what is none of these."""
    from engine.fit.models import find_model  # here, since only planning ahead needs it

    geometry = find_model(model)
    inputs = Inputs(geometry, read_data(train, held_out))
    for found in inputs.previews:
        if found.unclear:
            raise found.unclear
    return _gathered(geometry.path, train, held_out, hardware, inputs)


def plan_for(gathered: Gathered, overrides: Mapping[str, Any]) -> Plan:
    """Every way to train that is worth offering, with `overrides` (nested as in TOML) kept. Raises Problem."""
    asked = _asked(gathered, overrides)
    recipes = gathered.recipes
    job = part_of(gathered.job, asked.get("data.rows"))
    found = planner.plan(
        gathered.geometry, gathered.hardware, job, asked, gathered.rates, gathered.learnt, recipes.found
    )
    bad = tuple(f"A recipe cannot be used: {problem}" for problem in recipes.problems)
    return replace(found, notes=(*found.notes, *bad)) if bad else found


def propose(
    model: Path,
    train: Sequence[Data],
    held_out: Data | None,
    hardware: Hardware,
    overrides: Mapping[str, Any],
    name: str | None = None,
    profile: str | None = None,
) -> Proposal:
    """Sensible values for everything; those in `overrides` (nested as in TOML) win.

    `profile` names the profile to take ("fastest", "qlora", ...), else it is the first. A proposal that does not fit
    the memory is returned too, as the smallest there is (`fits` is False). Raises Problem for a model or data that
    cannot be trained on, for an override that is no valid value, and for a profile that there is not.
    """
    spec = parse_spec(_with_inputs(model, train, held_out, overrides, name), "settings")
    gathered = gather(spec.model.path, spec.data.train, spec.data.held_out, hardware)
    return propose_from(gathered, overrides, name, profile)


def propose_from(
    gathered: Gathered, overrides: Mapping[str, Any], name: str | None = None, profile: str | None = None
) -> Proposal:
    """`propose` with everything read already: milliseconds, no file touched."""
    decided, reasons = _of_data(gathered.inputs)
    asked = _spec(gathered, nested(decided), overrides, name)
    gathered.inputs.require_usable(asked.data.max_rejected_share)
    gathered.inputs.require_objective(asked.objective.kind)
    plan = plan_for(gathered, overrides)
    chosen = plan.profiles[0] if profile is None else find_profile(gathered, plan, profile)
    return Proposal(
        spec=_spec(gathered, nested({**decided, **chosen.values}), overrides, name),
        reasons={**chosen.reasons, **_kept(reasons, overrides)},
        estimate=chosen.estimate,
        budget_bytes=chosen.budget_bytes,
        geometry=gathered.geometry,
        previews=gathered.previews,
        plan=plan,
        profile=chosen,
    )


def find_profile(gathered: Gathered, plan: Plan, name: str) -> Profile:
    """The plan's profile of that name, or what the recipe of that name makes of its job. Raises Problem."""
    try:
        return plan.find(name)
    except Problem:
        recipe = gathered.recipes.find(name)
        if recipe is None:
            raise
        return planner.price_recipe(plan, recipe)


def settings_of(spec: RunSpec, geometry: Geometry, hardware: Hardware) -> Settings:
    """What the memory formulas need of `spec` on `hardware`, every "auto" resolved as the worker resolves it."""
    return settings_from(dotted(spec.model_dump()), geometry, hardware)


def predict(spec: RunSpec, geometry: Geometry, hardware: Hardware, learnt: Learnt | None = None) -> MemoryEstimate:
    """The memory that training `spec` takes on `hardware`'s first device, corrected by what was measured there.

    `learnt` is read from the measured rows where it is not given.
    """
    settings = settings_of(spec, geometry, hardware)
    capability = hardware.gpus[0].capability if hardware.gpus else None
    known = load_learnt() if learnt is None else learnt
    return known.adjust(estimate(geometry, settings, capability), geometry, settings, device_name(hardware))


def budget_bytes(hardware: Hardware, estimated: MemoryEstimate | None = None) -> int:
    """Memory a run may plan with: what is free now on the first GPU, else in RAM, less a reserve for others and for
    the error of `estimated`."""
    return budget_for_error(hardware, _USUAL_ERROR_SHARE if estimated is None else estimated.error_share)


def _gathered(
    model: Path, train: Sequence[Data], held_out: Data | None, hardware: Hardware, inputs: Inputs
) -> Gathered:
    sections = tuple(map(section_of, train))
    previews = inputs.previews[: len(train)]
    return Gathered(
        model=model,
        train=sections,
        held_out=None if held_out is None else section_of(held_out),
        inputs=inputs,
        hardware=hardware,
        job=job_of(previews, inputs.geometry.vocab_size, held_out is not None, sections),
        rates=rates_of(hardware, cached_rates(hardware)),
        learnt=load_learnt(),
        recipes=usable_recipes(),
    )


def _of_data(inputs: Inputs) -> tuple[dict[str, Any], dict[str, str]]:
    """What the data themselves decide, by dotted field, and why."""
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if inputs.kind is not None and (objective := objective_for(inputs.kind)) != "next_token":
        values["objective.kind"] = objective
        reasons["objective.kind"] = f"the data are {KIND_WORDS[inputs.kind]}"
    if inputs.chat_template is not None:
        known = inputs.chat_template
        values["data.chat_template"] = known.name
        reasons["data.chat_template"] = f"the model {known.lack}; {known.reason}"
    return values, reasons


def _kept(reasons: Mapping[str, str], overrides: Mapping[str, Any]) -> dict[str, str]:
    """The reasons, of fields that a person set themselves that they did."""
    asked = dotted(overrides)
    return {field: "as you set it" if field in asked else why for field, why in reasons.items()}


def _asked(gathered: Gathered, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in `overrides` by dotted field, checked. Raises Problem for one that is no valid value."""
    spec = _spec(gathered, {}, overrides, None)
    valid = dotted(spec.model_dump())
    return {field: valid[field] for field in dotted(overrides) if field not in _INPUTS}


def _spec(gathered: Gathered, decided: Mapping[str, Any], overrides: Mapping[str, Any], name: str | None) -> RunSpec:
    # A plan without data is a spec without data, too.
    train: Sequence[Data] = gathered.train or (Path("data.jsonl"),)
    inputs = _with_inputs(gathered.model, train, gathered.held_out, overrides, name)
    return parse_spec(_merge(decided, inputs), "settings")


def _with_inputs(
    model: Path, train: Sequence[Data], held_out: Data | None, overrides: Mapping[str, Any], name: str | None
) -> dict[str, Any]:
    """`overrides` over what is trained and on what, paths made absolute."""
    sections = [section_of(each) for each in train]
    data: dict[str, Any] = {"train": [section.model_dump(mode="json") for section in sections]}
    if held_out is not None:
        data["held_out"] = section_of(held_out).model_dump(mode="json")
    paths = [section.path for section in sections]
    inputs = {"name": name or _slug(paths), "model": {"path": str(model)}, "data": data}
    return _merge(resolve_paths(inputs, Path.cwd()), resolve_paths(dict(overrides), Path.cwd()))


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `above` over it, section by section."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def _slug(train: Sequence[Path]) -> str:
    """A run name from the first data file's."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", train[0].stem if train else "").strip("-._")
    return text[:64] or "run"
