"""How a checkpoint is put back in place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from engine.run.checkpoints.manifest import OPTIMIZER, RANDOM, STATE, TRAINABLE
from engine.train.checkpoints.optimizer_state import put_back
from engine.train.checkpoints.progress import Progress
from engine.train.checkpoints.random_state import RandomState
from engine.train.checkpoints.tensor_file import read_tensors, shapes
from profiles.problem import Problem


def load_checkpoint(
    path: Path, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> Progress:
    """Put a checkpoint's tensors, optimizer state and random state in place. Raises Problem when it does not fit.

    Whether it is damaged was looked at before (`newest_checkpoint`, `damage`).
    """
    load_trainable(path, parameters)
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    put_back(optimizer, parameters, read_tensors(path / OPTIMIZER), state["optimizer"])
    RandomState.from_tensors(dict(read_tensors(path / RANDOM))).put_back()
    return Progress(**state["progress"])


def load_trainable(path: Path, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Put a checkpoint's parameters in place. Raises Problem naming the first tensor that does not fit."""
    remedy = "Resume with the settings the run was started with."
    found = shapes(path / TRAINABLE)
    for name in sorted(found.keys() ^ parameters.keys()):
        what = "is in the checkpoint but not in the model" if name in found else "is not in the checkpoint"
        raise Problem(f"{path}, tensor {name}", what, remedy)
    for name, parameter in parameters.items():
        if parameter.shape != found[name]:
            what = f"has shape {list(found[name])}, the model has {list(parameter.shape)}"
            raise Problem(f"{path}, tensor {name}", what, remedy)
    with torch.no_grad():
        for name, tensor in read_tensors(path / TRAINABLE):
            parameters[name].copy_(tensor)
