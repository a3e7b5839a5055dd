"""A model's parameters by name from its config alone, for architectures no formula covers: a child process builds it
on the meta device, and the answer is kept."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.fit.cache import read_cached, write_cached
from engine.modules import module_command
from engine.seal.policy.places import passing_places
from engine.seal.sealing import run_sealed
from profiles.problem import Problem, printable

# Importing torch and transformers takes some 5 s, on a busy machine or a network disk a minute; the largest model's
# tree takes a few seconds more.
TIMEOUT_SECONDS = 180.0
_VERSION = 1
_ANSWER_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True)
class Shapes:
    """What transformers builds from a config."""

    tensors: Mapping[str, tuple[int, ...]]
    """Shape of every parameter by its name in the module tree; tied ones once."""
    linear: frozenset[str]
    """Modules that are linear layers, the output head left out."""
    tied: bool
    config: Mapping[str, Any]
    """The sizes transformers takes, its defaults included, under their usual names."""


def model_shapes(path: Path, values: Mapping[str, Any], *, timeout_seconds: float = TIMEOUT_SECONDS) -> Shapes:
    """The parameters of the model that the fields `values` of the config.json at `path` describe.

    Takes some seconds for a config never seen before. Raises Problem when the installed transformers cannot build it.
    """
    text = json.dumps(values, sort_keys=True)
    key = f"{_VERSION} {version('transformers')} {text}"
    name = f"shapes/{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    kept = read_cached(name)
    if kept is not None and (shapes := _parsed(kept)) is not None:
        return shapes
    answer = _ask(path, text, timeout_seconds)
    if "refused" in answer:
        raise _refusal(path, values, answer)
    shapes = _parsed(answer)
    assert shapes is not None, "the child prints what this file reads"
    write_cached(name, answer)
    return shapes


def _ask(path: Path, text: str, timeout_seconds: float) -> dict[str, Any]:
    try:
        with passing_places() as places:
            command = module_command("engine.fit.shapes_child")
            done = run_sealed(command, places, input=text.encode(), timeout_seconds=timeout_seconds)
    except subprocess.TimeoutExpired:
        raise Problem(
            str(path),
            f"describes a model that transformers did not build within {timeout_seconds:.0f} s",
            "Check its sizes; on a busy machine, try again.",
        ) from None
    try:
        answer = json.loads(done.stdout) if len(done.stdout) <= _ANSWER_LIMIT_BYTES else None
    except ValueError:
        answer = None
    if done.returncode or not isinstance(answer, dict):
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Problem(
            str(path),
            f"describes a model that transformers could not build (exit status {done.returncode}): "
            f"{printable(last, 200)}",
            "Check its sizes against the model's source.",
        )
    return answer


def _refusal(path: Path, values: Mapping[str, Any], answer: Mapping[str, Any]) -> Problem:
    model_type = printable(values.get("model_type"))
    installed = version("transformers")
    if answer["refused"] == "unknown":
        return Problem(
            f"{path}, field model_type",
            f"is {model_type}, which the installed transformers ({installed}) does not know",
            "Choose another model, or install a transformers that has it.",
        )
    if answer["refused"] == "not causal":
        return Problem(
            f"{path}, field model_type",
            f"is {model_type}, which has no causal language model in transformers {installed}",
            "Choose a causal language model.",
        )
    return Problem(
        str(path),
        f"transformers refuses this {model_type} config: {printable(answer.get('fault'), 200)}",
        "Copy config.json from the model's source again.",
    )


def _parsed(value: Mapping[str, Any]) -> Shapes | None:
    """An answer of the child, or one that was kept; None for anything else."""
    try:
        tensors = {str(name): tuple(int(size) for size in shape) for name, shape in value["tensors"].items()}
        config = dict(value["config"])
        return Shapes(tensors, frozenset(map(str, value["linear"])), bool(value["tied"]), config) if tensors else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
