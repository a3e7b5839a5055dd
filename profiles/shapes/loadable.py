"""Whether a model's folder may be handed to the library that loads it: every file looked at before, within bounds."""

from __future__ import annotations

from pathlib import Path

from profiles.bounded_files import read_json
from profiles.shapes.model_config import CONFIG_LIMIT_BYTES, require_buildable
from profiles.shapes.model_folder import check_side_files, read_weights, require_model_folder
from profiles.shapes.refusals import refusals


def require_safe_folder(folder: Path) -> None:
    """Raises Problem for a folder that would have transformers run code, fetch something, read other files than its own
    or make room for numbers that are not there. Whether the model can be trained is another question."""
    require_model_folder(folder)
    path = folder / "config.json"
    values = read_json(path, CONFIG_LIMIT_BYTES)
    require_buildable(path, values)
    problems = [*refusals(path, values, None), *check_side_files(folder)]
    if problems:
        raise problems[0]
    read_weights(folder)
