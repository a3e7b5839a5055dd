"""A model folder, or a config.json alone, as a Geometry: read from config.json and the safetensors headers; never a
weight, never torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles.problem import Problem, printable
from profiles.shapes.architectures import expand
from profiles.shapes.model_config import ModelConfig, read_config
from profiles.shapes.model_folder import check_side_files, read_tokenizer, read_weights, require_model_folder
from profiles.shapes.model_shape import Geometry, Source
from profiles.shapes.quantised_tensors import true_tensors
from profiles.shapes.safetensors_header import COPY_AGAIN, Tensor
from profiles.shapes.tensor_checks import check_tensors
from profiles.shapes.tensor_names import BUFFER, HEAD, LAYER, OTHER_SENSES

__all__ = ["Geometry", "ModelReport", "Tensor", "geometry_of_config", "inspect_model", "read_geometry"]


@dataclass(frozen=True)
class ModelReport:
    """What a model folder is and all that is wrong with it; it can be trained when `problems` is empty."""

    path: Path
    geometry: Geometry | None
    tokenizer: str | None
    has_chat_template: bool
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": "model",
            "path": str(self.path),
            "geometry": self.geometry and self.geometry.as_dict(),
            "tokenizer": self.tokenizer,
            "chat_template": self.has_chat_template,
            "problems": [problem.as_dict() for problem in self.problems],
            "notes": list(self.notes),
        }


def read_geometry(path: Path) -> Geometry:
    """The shape of the model in folder `path`. Raises Problem for the first fault that forbids training."""
    geometry, problems = _read(path)
    if problems:
        raise problems[0]
    assert geometry is not None
    return geometry


def geometry_of_config(path: Path, config: ModelConfig, source: Source = "config") -> Geometry | None:
    """The shape that `config` alone tells, by formula; None for a family without one. Raises Problem for a bad field.

    Of a model that also reads images or sound it is the text part.
    """
    tensors = expand(config)
    if tensors is None:
        return None
    return Geometry(path, config, not any(HEAD.search(name) for name in tensors), tensors, source)


def inspect_model(path: Path) -> ModelReport:
    """All that can be said of the folder `path` without loading it; faults are listed, never raised."""
    tokenizer, has_template = None, False
    try:
        geometry, problems = _read(path)
        tokenizer, has_template, tokenizer_problems = read_tokenizer(path)
        problems += tokenizer_problems
    except Problem as problem:
        return ModelReport(path, None, None, False, (problem,), ())
    notes = []
    if tokenizer and not has_template:
        notes.append("There is no chat template: data of prompts and completions or plain text works, chats do not.")
    if geometry and geometry.source == "config":
        notes.append("The shape is what config.json says; `finetui fit` can plan with it.")
    if geometry and not geometry.config.has_formula:
        notes.append(f"Memory estimates were not checked for models of type {printable(geometry.model_type)}.")
    return ModelReport(path, geometry, tokenizer, has_template, tuple(problems), tuple(notes))


def _read(path: Path) -> tuple[Geometry | None, list[Problem]]:
    """The geometry, where it can be read, and all faults. Raises Problem when it is no model folder.

    Without usable weights it is what the config tells, where a formula covers it.
    """
    require_model_folder(path)
    try:
        config, problems = read_config(path)
    except Problem as problem:
        return None, [problem]
    problems += check_side_files(path)
    try:
        by_formula = geometry_of_config(path, config)
    except Problem as problem:
        return None, [*problems, problem]
    try:
        stored = read_weights(path)
    except Problem as problem:
        return by_formula, [*problems, problem]
    expected = {name: tensor.shape for name, tensor in by_formula.tensors.items()} if by_formula else {}
    tensors = {name: tensor for name, tensor in stored.items() if not BUFFER.search(name)}
    if config.quantisation is not None:
        tensors = true_tensors(tensors, config.quantisation_bits, expected)
    elif not problems:
        problems += check_tensors(path, config, tensors, expected)
    vision = sum(tensor.elements for name, tensor in tensors.items() if OTHER_SENSES.search(name))
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if not OTHER_SENSES.search(name) and not _is_beyond(name, config.layers)
    }
    tied = config.tied if config.tied is not None else not any(HEAD.search(name) for name in tensors)
    if tied:  # a stored copy of the head is dropped in favour of the embedding
        tensors = {name: tensor for name, tensor in tensors.items() if not HEAD.search(name)}
    if not tensors:
        return None, [*problems, Problem(str(path), "has weight files without any tensor", COPY_AGAIN)]
    special = config.quantisation is not None or vision
    stored_bytes = sum(tensor.bytes for tensor in stored.values()) if special else None
    return Geometry(path, config, tied, tensors, "files", vision, stored_bytes), problems


def _is_beyond(name: str, layers: int) -> bool:
    """Whether `name` is of a layer after the last: DeepSeek-V3's files hold one that only speeds up writing."""
    match = LAYER.search(name)
    return match is not None and int(match[3]) >= layers
