"""Why a model that can be described cannot be trained here: its own code, quantised weights, downloaded kernels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profiles.problem import Problem, printable
from profiles.shapes.weight_storage import UNTOLD_METHOD

_KERNEL_FIELDS = (
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
    "_experts_implementation_internal",
)
# Have transformers read weights, or a whole model, from another place than the folder's own files.
_ELSEWHERE_FIELDS = ("transformers_weights", "adapter_config", "base_model_name_or_path")
_CODE_FIELDS = ("auto_map", "custom_pipelines")


def refusals(path: Path, values: Mapping[str, Any], quantisation: str | None) -> list[Problem]:
    """What in the config.json at `path`, whose fields are `values`, forbids training."""
    text = values.get("text_config")
    parts = [values, *([text] if isinstance(text, dict) else [])]
    problems = [code_problem(path, part[field], field) for part in parts for field in _CODE_FIELDS if part.get(field)]
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
        for part in parts:
            if kernel := _kernel(part.get(field)):
                problems.append(
                    Problem(
                        f"{path}, field {field}",
                        f"asks for the downloaded kernel {printable(kernel)}, and finetui never downloads",
                        f"Remove {field} from the file.",
                    )
                )
    for field in _ELSEWHERE_FIELDS:
        if values.get(field) is not None:
            problems.append(
                Problem(
                    f"{path}, field {field}",
                    f"is {printable(repr(values[field]))}: it names weights in another place than this folder's own",
                    f"Remove {field} from the file.",
                )
            )
    return problems


def _kernel(value: Any) -> str | None:
    """What is named "organisation/repository" in a field, or in one of its parts."""
    found = value.values() if isinstance(value, dict) else [value]
    return next((each for each in found if isinstance(each, str) and "/" in each), None)


def code_problem(path: Path, value: Any, field: str = "auto_map") -> Problem:
    """The refusal of a folder where `value`, that of `field` in the file at `path`, names Python code."""
    files: set[str] = set()
    pending = [value]
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
        f"{path}, field {field}",
        f"this model wants to run {count} from its folder ({named}), and finetui never runs a model's code",
        f"Choose a model that transformers has itself. If it has this one, remove {field} from the file.",
    )
