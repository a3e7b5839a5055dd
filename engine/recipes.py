"""Recipes with their fields checked as a run's: what profiles.planning.recipes, which knows no RunSpec, cannot tell."""

from __future__ import annotations

from pathlib import Path

from engine.spec import parse_spec
from profiles.planning.recipes import Recipe, Recipes, all_recipes, load_recipe
from profiles.planning.settings_of_spec import nested
from profiles.problem import Problem


def usable_recipes(folder: Path | None = None) -> Recipes:
    """All recipes whose fields a run can have; `problems` tell of the others. `folder` is as for `all_recipes`."""
    recipes = all_recipes(folder)
    found, problems = [], list(recipes.problems)
    for recipe in recipes.found:
        try:
            found.append(check_recipe(recipe))
        except Problem as problem:
            problems.append(problem)
    return Recipes(tuple(found), tuple(problems))


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises Problem naming the file and the field."""
    return check_recipe(load_recipe(path))


def check_recipe(recipe: Recipe) -> Recipe:
    """`recipe`, when a run can have its fields. Raises Problem naming its file and the field."""
    sections = nested(recipe.fields)
    sections["model"] = {"path": "model", **sections.get("model", {})}
    sections["data"] = {"train": ["data.jsonl"], **sections.get("data", {})}
    parse_spec({"name": "recipe", **sections}, str(recipe.path))
    return recipe
