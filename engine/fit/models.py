"""The shape of whatever a person names: a model's folder, a folder with a config.json alone, a catalogue's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.fit.shapes import TIMEOUT_SECONDS, model_shapes
from profiles.bounded_files import read_json
from profiles.geometry import Geometry, geometry_of_config, inspect_model
from profiles.model_catalogue import catalogue_geometry, catalogue_models, close_names, find_catalogue_model
from profiles.problem import Problem, printable
from profiles.shapes.architectures import FAMILIES
from profiles.shapes.model_config import CONFIG_LIMIT_BYTES, parse_config, require_buildable
from profiles.shapes.model_folder import has_weights, require_model_folder
from profiles.shapes.safetensors_header import Tensor
from profiles.shapes.tensor_names import OTHER_SENSES

_NAMES_OFFERED = 3


def find_model(text: str | Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Geometry:
    """The geometry of the model in folder `text`, with weights or with a config.json alone, or of that catalogue name.

    A folder wins over a name. For an architecture that no formula covers a child process asks transformers, once per
    config: some seconds. Raises Problem when there is no such model, or none that can be described; a model that can
    be planned for but not trained (quantised, with a vision tower, ...) is given back: see inspect_model.
    """
    name = str(text).strip()
    if name and _exists(path := Path(text).expanduser()):
        return _of_folder(path.absolute(), timeout_seconds)
    if find_catalogue_model(name) is not None:
        return catalogue_geometry(name)
    close = close_names(name, _NAMES_OFFERED)
    raise Problem(
        printable(name) or "model",
        f"is neither a folder here nor one of the {len(catalogue_models())} models in the catalogue",
        f"Did you mean {' or '.join(close)}?" if close else "Give a model's folder.",
    )


def _of_folder(path: Path, timeout_seconds: float) -> Geometry:
    require_model_folder(path)
    config_path = path / "config.json"
    values = read_json(config_path, CONFIG_LIMIT_BYTES)
    if has_weights(path):
        report = inspect_model(path)
        if report.geometry is not None and report.geometry.source == "files":
            return report.geometry if is_known(values) else _explained(report.geometry, values, timeout_seconds)
        if is_known(values):  # the weights are damaged, or the config is
            raise report.problems[0]
    if is_known(values) and not isinstance(values.get("text_config"), dict):
        geometry = geometry_of_config(path, parse_config(config_path, values))
        if geometry is not None:
            return geometry
    return _of_transformers(path, values, timeout_seconds)


def _of_transformers(path: Path, values: Mapping[str, Any], timeout_seconds: float) -> Geometry:
    require_buildable(path / "config.json", values)
    shapes = model_shapes(path / "config.json", values, timeout_seconds=timeout_seconds)
    config = parse_config(path / "config.json", values, shapes.config)
    tensors = {name: Tensor(shape, config.dtype) for name, shape in shapes.tensors.items()}
    others = sum(tensor.elements for name, tensor in tensors.items() if OTHER_SENSES.search(name))
    tensors = {name: tensor for name, tensor in tensors.items() if not OTHER_SENSES.search(name)}
    return Geometry(path, config, shapes.tied, tensors, "config", others, linear_names=shapes.linear)


def _explained(geometry: Geometry, values: Mapping[str, Any], timeout_seconds: float) -> Geometry:
    """`geometry`, read from files, with what transformers tells of a type no formula covers."""
    path = geometry.config.path
    require_buildable(path, values)
    shapes = model_shapes(path, values, timeout_seconds=timeout_seconds)
    config = parse_config(path, values, shapes.config)
    stored = {name.removesuffix(".weight") for name in geometry.tensors}
    # Files may name modules in another way than transformers does; then names must tell what is linear.
    linear = shapes.linear if shapes.linear & stored else None
    return replace(geometry, config=config, linear_names=linear)


def is_known(values: Mapping[str, Any]) -> bool:
    """Whether a formula covers the type of model that config.json's fields `values` name."""
    text = values.get("text_config")
    model_type = (text if isinstance(text, dict) else values).get("model_type")
    return isinstance(model_type, str) and model_type in FAMILIES


def _exists(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except (OSError, ValueError):  # a name too long, or with a null character
        return False
