"""Base models people fine-tune, known before any download: catalogue/models.toml."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from profiles.geometry import Geometry, geometry_of_config
from profiles.shapes.model_config import ModelConfig, parse_config

_FILE = Path(__file__).parent / "catalogue" / "models.toml"
_FACTS = frozenset({"name", "licence", "parameters", "variants", "nulls"})
_LEAST_LIKENESS = 0.6  # difflib's own default


@dataclass(frozen=True)
class CatalogueModel:
    """One entry. `name` is the hub's ("Qwen/Qwen3-8B")."""

    name: str
    licence: str
    parameters: int
    """As published with the weights; of a mixture of experts all of them."""
    variants: tuple[str, ...]
    """Other models of the same shape."""
    values: Mapping[str, Any] = field(repr=False, compare=False)
    """The fields of its config.json that shape it."""

    @property
    def context_length(self) -> int | None:
        """Longest text the model was made for, in tokens."""
        return self.config().context_length

    def config(self) -> ModelConfig:
        return _config(self.name)

    def geometry(self) -> Geometry:
        """Its shape, by formula; the same object every time."""
        return catalogue_geometry(self.name)


@cache
def catalogue_models() -> tuple[CatalogueModel, ...]:
    """All models of the catalogue, in its order: by family, then by size. Read once, in a few milliseconds."""
    entries = tomllib.loads(_FILE.read_text(encoding="utf-8"))["model"]
    return tuple(
        CatalogueModel(
            name=entry["name"],
            licence=entry["licence"],
            parameters=entry["parameters"],
            variants=tuple(entry.get("variants", ())),
            values={name: value for name, value in entry.items() if name not in _FACTS}
            | dict.fromkeys(entry.get("nulls", ())),
        )
        for entry in entries
    )


def find_catalogue_model(name: str) -> CatalogueModel | None:
    """The entry of that name or with that variant, whatever its case; the part after the slash is enough."""
    return _by_name().get(name.strip().casefold())


def catalogue_geometry(name: str) -> Geometry:
    """The shape of the catalogue's model `name` (any name `find_catalogue_model` finds).

    Its `path` is the model's name. Raises KeyError for a name that is not in the catalogue.
    """
    model = find_catalogue_model(name)
    if model is None:
        raise KeyError(name)
    return _geometry(model.name)


def close_names(text: str, count: int) -> list[str]:
    """Up to `count` names of the catalogue that look most like `text`, the likest first."""
    wanted = text.strip().casefold()
    by_key: dict[str, str] = {}
    for model in catalogue_models():
        for name in (model.name, *model.variants):
            by_key.setdefault(name.casefold(), name)
            by_key.setdefault(name.rpartition("/")[2].casefold(), name)
    close = difflib.get_close_matches(wanted, by_key, n=2 * count, cutoff=_LEAST_LIKENESS)
    return list(dict.fromkeys(by_key[key] for key in close))[:count]


@cache
def _by_name() -> dict[str, CatalogueModel]:
    found: dict[str, CatalogueModel] = {}
    for model in catalogue_models():
        for name in (model.name, *model.variants):
            found[name.casefold()] = model
            found.setdefault(name.rpartition("/")[2].casefold(), model)
    return found


@cache
def _config(name: str) -> ModelConfig:
    return parse_config(Path(name), _by_name()[name.casefold()].values)


@cache
def _geometry(name: str) -> Geometry:
    geometry = geometry_of_config(Path(name), _config(name), "catalogue")
    assert geometry is not None, f"{name}: the catalogue holds only families with a formula"
    return geometry
