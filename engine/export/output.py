"""What a run left behind: its adapter or its tuned model. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.run.directory import RunDirectory
from profiles.problem import Problem


@dataclass(frozen=True)
class Output:
    """`adapter`: PEFT matrices beside a base model; `model`: a whole model. Its tokenizer lies beside it."""

    kind: Literal["adapter", "model"]
    path: Path


def output_of(run: RunDirectory) -> Output:
    """The result of `run`. Raises Problem when there is none yet, or it is incomplete."""
    kind: Literal["adapter", "model"] = "adapter" if run.spec().method.adapts else "model"
    output = Output(kind, run.outputs / kind)
    if not output.path.is_dir():
        raise Problem(
            f"run {run.name}",
            f"has no tuned {kind} yet",
            "Wait until it has finished, or resume it if it was stopped.",
        )
    config, weights = ("adapter_config.json", "adapter_model*.safetensors")
    if kind == "model":
        config, weights = ("config.json", "model*.safetensors")
    if not (output.path / config).is_file() or not any(output.path.glob(weights)):
        raise Problem(
            str(output.path),
            f"lacks {config} or {weights}, so the {kind} is not whole",
            "Resume the run, so that it is written again.",
        )
    return output
