"""`finetui fit --settings FILE`: exactly the settings that a run's spec or a recipe has, priced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles.problem import Problem, printable

if TYPE_CHECKING:
    from profiles.geometry import Geometry
    from profiles.planner import Plan, Profile

_PATHS = ("model.path", "data.train", "data.held_out")


def read_settings(path: Path, model: str, geometry: Geometry) -> Callable[[Plan], Profile]:
    """What prices the settings in `path` within a plan. A spec, which names its model or its data, has every field, as
    its run would; a recipe has those it sets, and the rest is chosen around them. Raises Problem."""
    from engine.spec import read_toml, resolve_paths
    from profiles.planner import price, price_recipe

    path = path.expanduser()
    found = resolve_paths(read_toml(path), path.absolute().parent)
    own = {name: value for name, value in found.items() if isinstance(value, dict)}
    named = own.get("model", {}).get("path")
    if named is None and "train" not in own.get("data", {}):
        from engine.recipes import read_recipe

        recipe = read_recipe(path)
        return lambda plan: price_recipe(plan, recipe)
    if named is not None:
        _require_same_model(path, Path(str(named)), model, geometry)
    values = _spec_values(path, found, own)
    return lambda plan: price(plan, values, printable(path.stem))


def _spec_values(path: Path, found: dict[str, Any], own: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every field of a spec but its paths, by dotted name, where nothing but its paths may be missing."""
    from engine.spec import parse_spec
    from profiles.planning.settings_of_spec import dotted

    here = path.absolute().parent
    filled = {"name": "settings", **found}
    filled["model"] = {"path": str(here), **own.get("model", {})}
    filled["data"] = {"train": [str(here / "data.jsonl")], **own.get("data", {})}
    values = dotted(parse_spec(filled, str(path)).model_dump(mode="json", exclude_none=True))
    return {field: value for field, value in values.items() if field not in _PATHS}


def _require_same_model(path: Path, named: Path, model: str, geometry: Geometry) -> None:
    """Raise Problem when a settings file was made for a model of another shape than the one asked for."""
    from engine.fit.models import find_model

    if named == Path(model).expanduser().absolute():
        return
    # A model that is gone, or was on another machine, is known by its folder's name alone.
    same = _shape(find_model(named)) == _shape(geometry) if named.exists() else named.name == Path(model).name
    if not same:
        raise Problem(
            f"{path}, field model.path",
            f"is {printable(named, 200)}, another model than {printable(model)}",
            "Give that model, or take [model] out of a copy of the file to try its settings on this one.",
        )


def _shape(geometry: Geometry) -> tuple[str, int, int, int, int]:
    return (
        geometry.architecture,
        geometry.parameters,
        geometry.layers,
        geometry.hidden_size,
        geometry.vocab_size,
    )
