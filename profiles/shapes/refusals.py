"""Why a model that can be described cannot be trained here: its own code, quantised weights, downloaded kernels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profiles.problem import Problem, printable
from profiles.shapes.weight_storage import UNTOLD_METHOD

_KERNEL_FIELDS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


def refusals(path: Path, values: Mapping[str, Any], quantisation: str | None) -> list[Problem]:
    """What in the config.json at `path`, whose fields are `values`, forbids training."""
    problems = []
    if auto_map := values.get("auto_map"):
        problems.append(code_problem(path, auto_map))
    if quantisation is not None:
        named = f" ({printable(quantisation)})" if quantisation != UNTOLD_METHOD else ""
        problems.append(
            Problem(
                f"{path}, field quantization_config",
                f"this model is already quantised{named}; its weights cannot be trained further",
                "Choose the unquantised model; qlora quantises it while loading.",
            )
        )
    for field in _KERNEL_FIELDS:
        value = values.get(field)
        if isinstance(value, str) and "/" in value:
            problems.append(
                Problem(
                    f"{path}, field {field}",
                    f"asks for the downloaded kernel {printable(value)}, and finetui never downloads",
                    f"Remove {field} from the file.",
                )
            )
    return problems


def code_problem(path: Path, auto_map: Any) -> Problem:
    """The refusal of a folder whose `auto_map` names Python code."""
    files: set[str] = set()
    pending = [auto_map]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, str):
            files.add(value.rpartition("--")[2].partition(".")[0] + ".py")
    named = ", ".join(printable(name) for name in sorted(files)[:3])
    count = "1 Python file" if len(files) == 1 else f"{len(files)} Python files"
    return Problem(
        f"{path}, field auto_map",
        f"this model wants to run {count} from its folder ({named}), and finetui never runs a model's code",
        "Choose a model that transformers has itself. If it has this one, remove auto_map from the file.",
    )
