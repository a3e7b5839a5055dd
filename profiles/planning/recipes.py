"""Recipes: settings under a name, as TOML that people copy, edit, share and keep in their configuration.

A recipe fixes some fields of a run's spec and leaves the rest to the planner. Those that ship with finetui are in
catalogue/recipes.toml; a person's are files of their own, one recipe each.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from profiles.bounded_files import file_size, read_bytes
from profiles.geometry import Geometry
from profiles.hardware import Hardware
from profiles.planning.budget import free_bytes
from profiles.planning.frame import Job
from profiles.planning.settings_of_spec import dotted
from profiles.problem import Problem, printable

_BUILT_IN = Path(__file__).parents[1] / "catalogue" / "recipes.toml"
_LIMIT_BYTES = 1 << 20
_SECTIONS = ("model", "data", "method", "optimizer", "schedule", "train", "evaluation", "checkpoint")
_PATHS = frozenset({"model.path", "data.train", "data.held_out"})
_TEXTS = ("name", "description", "source")
_MEASURES = ("rows", "tokens", "longest_tokens", "parameters", "memory_gib")
_LIMITS = tuple(f"{measure}_at_{end}" for measure in _MEASURES for end in ("least", "most"))


@dataclass(frozen=True)
class Recipe:
    """`fields` are RunSpec's, by dotted name; `rows_per_step` is None to leave the rows of a step to the data.

    `limits` are those of its [when] ("rows_at_least" -> 1000), `when` is the same in words.
    """

    name: str
    description: str
    source: str
    when: str
    fields: Mapping[str, Any]
    rows_per_step: int | None = None
    device: str | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    path: Path = _BUILT_IN

    @property
    def built_in(self) -> bool:
        return self.path == _BUILT_IN

    def applies(self, geometry: Geometry, hardware: Hardware, job: Job) -> bool:
        """Whether it is made for this model, machine and data; what is not known of the data never rules it out.

        Those that ship with finetui are for imitating answers, and their rates would wreck a model otherwise.
        """
        if self.built_in and job.objective != "next_token":
            return False
        if self.device not in (None, "cuda" if hardware.gpus else "cpu"):
            return False
        measured = {
            "rows": job.rows,
            "tokens": job.tokens,
            "longest_tokens": job.longest_tokens,
            "parameters": geometry.parameters,
            "memory_gib": free_bytes(hardware) >> 30,
        }
        for name, size in measured.items():
            least, most = self.limits.get(f"{name}_at_least"), self.limits.get(f"{name}_at_most")
            if size and ((least is not None and size < least) or (most is not None and size > most)):
                return False
        return True


@dataclass(frozen=True)
class Recipes:
    """All there are, a person's own first; `problems` are of their files that cannot be used."""

    found: tuple[Recipe, ...]
    problems: tuple[Problem, ...]

    def find(self, name: str) -> Recipe | None:
        wanted = name.strip().casefold().removeprefix("recipe:").strip()
        return next((each for each in self.found if each.name.casefold() == wanted), None)


def recipes_folder() -> Path:
    """Where a person's recipes are kept: under FINETUI_HOME where that is set, else the platform's config folder."""
    if given := os.environ.get("FINETUI_HOME"):
        return Path(given).expanduser().absolute() / "recipes"
    import platformdirs  # here, since FINETUI_HOME makes it needless

    return platformdirs.user_config_path("finetui", appauthor=False) / "recipes"


@cache
def built_in_recipes() -> tuple[Recipe, ...]:
    entries = tomllib.loads(_BUILT_IN.read_text(encoding="utf-8"))["recipe"]
    return tuple(_parse(entry, _BUILT_IN) for entry in entries)


def all_recipes(folder: Path | None = None) -> Recipes:
    """Those in `folder` (a person's own unless given) and the built-in ones; a person's wins over one of its name."""
    own, problems = [], []
    try:
        paths = sorted((folder or recipes_folder()).glob("*.toml"))
    except OSError:
        paths = []
    for path in paths:
        try:
            own.append(load_recipe(path))
        except Problem as problem:
            problems.append(problem)
    names = {recipe.name.casefold() for recipe in own}
    others = [recipe for recipe in built_in_recipes() if recipe.name.casefold() not in names]
    return Recipes((*own, *others), tuple(problems))


def load_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises Problem naming the file and the field."""
    if file_size(path) > _LIMIT_BYTES:
        raise Problem(str(path), "is over 1 MiB, which no recipe is", "Give the recipe's own file.")
    try:
        values = tomllib.loads(read_bytes(path, _LIMIT_BYTES).decode())
    except UnicodeDecodeError as error:
        raise Problem(str(path), f"byte {error.start} is not UTF-8", "Save the file as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise Problem(str(path), f"is not valid TOML: {error}", "Correct the file at that place.") from None
    return _parse({"name": path.stem, **values}, path)


def fitted_fields(recipe: Recipe, asked: Mapping[str, Any], geometry: Geometry) -> dict[str, Any]:
    """The recipe's fields under what a person asked for, within what the model can: its context, its layers."""
    fields: dict[str, Any] = {**recipe.fields, **asked}
    bounds: Sequence[tuple[str, int | None]] = (
        ("data.sequence_length", geometry.context_length),
        ("method.trained_layers", geometry.layers),
    )
    for name, most in bounds:
        if most and name not in asked and name in fields:
            fields[name] = min(fields[name], most)
    return fields


def _parse(values: Mapping[str, Any], path: Path) -> Recipe:
    """A recipe's tables, checked as far as they are a recipe's own; a spec's fields are checked where specs are."""
    where = str(path) if path != _BUILT_IN else f"{path.name}, recipe {values.get('name')}"

    def wrong(name: str, what: str, fix: str) -> Problem:
        return Problem(f"{where}, field {printable(name)}", what, fix)

    allowed = (*_TEXTS, "rows_per_step", "when", *_SECTIONS)
    for name, value in values.items():
        if name not in allowed:
            raise wrong(name, "is no part of a recipe", f"A recipe has: {', '.join(allowed)}.")
        if name in (*_SECTIONS, "when") and not isinstance(value, Mapping):
            raise wrong(name, "is not a section", f"Write [{name}] above its fields.")
        if name in _TEXTS and (not isinstance(value, str) or not value.strip()):
            raise wrong(name, f"is {printable(repr(value))}", "Write a text in quotes.")
    rows = values.get("rows_per_step")
    if rows is not None and not _is_count(rows):
        raise wrong("rows_per_step", f"is {printable(repr(rows))}", "Write a whole number from 1.")
    when = dict(values.get("when", {}))
    text, device = when.pop("text", ""), when.pop("device", None)
    if not isinstance(text, str):
        raise wrong("when.text", f"is {printable(repr(text))}", "Write a text in quotes.")
    if device not in (None, "cpu", "cuda"):
        raise wrong("when.device", f"is {printable(repr(device))}", 'Write "cpu" or "cuda".')
    for name, value in when.items():
        if name not in _LIMITS:
            raise wrong(f"when.{name}", "is no limit of a recipe", f"Limits are: text, device, {', '.join(_LIMITS)}.")
        if not _is_count(value):
            raise wrong(f"when.{name}", f"is {printable(repr(value))}", "Write a whole number from 1.")
    fields = dotted({name: values[name] for name in _SECTIONS if name in values})
    for name in fields:
        if name in _PATHS:
            raise wrong(name, "is a path, and recipes are shared between machines", "Leave it out.")
    return Recipe(
        name=printable(values["name"].strip(), 60),
        description=printable(values.get("description", ""), 200),
        source=printable(values.get("source", ""), 200),
        when=printable(text, 200),
        fields=fields,
        rows_per_step=rows,
        device=device,
        limits=when,
        path=path,
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1
