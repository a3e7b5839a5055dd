"""One pickle of torch's, opened with nothing but tensors allowed in it. Imports torch; for the sealed child alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.convert.archive import SAVE_AGAIN, foreign_globals, is_zip, require_plain_zip
from engine.train.checkpoints.tensor_file import WRITABLE_DTYPES
from profiles.problem import Problem, printable

_GLOBAL = re.compile(r"\bGLOBAL\s+([\w.]+)")
# The keys of an optimizer's state_dict, and of a trainer's file around it.
_OPTIMIZER_KEYS = {"state", "param_groups"}
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
# The header of a safetensors file must stay small enough to be read: profiles.shapes.safetensors_header.
_TENSORS_LIMIT = 100_000
_NAME_LIMIT = 512


def open_pickle(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of the file by name, mapped from it where its format allows. Raises Problem: it is no such file,
    needs more than tensors, or holds something else."""
    zipped = is_zip(path)
    if zipped:
        require_plain_zip(path)
    try:
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except MemoryError:
        raise
    except Exception as error:  # whatever torch makes of a hostile file: pickle's errors, its own, KeyError ...
        raise _refusal(path, error) from None
    return _weights(path, value)


def _refusal(path: Path, error: Exception) -> Problem:
    text = str(error)
    asked = foreign_globals(path)
    if not asked and (match := _GLOBAL.search(text)):
        asked = [printable(match[1])]
    if asked:
        return Problem(
            str(path),
            f"asks to run {' and '.join(asked)}, which is more than weights need; it was not run",
            f"Do not open this file with anything. {SAVE_AGAIN}",
        )
    reason = printable(text.strip().splitlines()[0] if text.strip() else type(error).__name__, 200)
    if "Weights only load failed" in reason:
        reason = "its pickle is written in a way that loading of weights alone does not read"
    return Problem(str(path), f"cannot be read as weights: {reason}", f"Copy the file again. {SAVE_AGAIN}")


def _weights(path: Path, value: Any) -> dict[str, torch.Tensor]:
    if not isinstance(value, Mapping):
        raise Problem(str(path), f"holds {_kind(value)}, not tensors by name", SAVE_AGAIN)
    if value.keys() >= _OPTIMIZER_KEYS:
        raise Problem(str(path), "holds an optimizer's state, no model weights", "Choose the file with the weights.")
    for wrapper in _WRAPPERS:
        if isinstance(value.get(wrapper), Mapping):
            raise Problem(
                f"{path}, key {wrapper}",
                "holds the tensors among other things: this is a training's checkpoint, not a model's weights",
                "Have whoever made it save the model alone, as safetensors.",
            )
    if len(value) > _TENSORS_LIMIT:
        raise Problem(str(path), f"holds {len(value):,} tensors; no model has over {_TENSORS_LIMIT:,}", SAVE_AGAIN)
    if not value:
        raise Problem(str(path), "holds no tensor", "Copy the file again.")
    return {_name(path, name): _tensor(path, name, tensor) for name, tensor in value.items()}


def _name(path: Path, name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_LIMIT or name == "__metadata__":
        raise Problem(f"{path}, key {printable(repr(name))}", "is no name of a tensor", SAVE_AGAIN)
    return name


def _tensor(path: Path, name: str, value: Any) -> torch.Tensor:
    where = f"{path}, key {printable(name)}"
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        raise Problem(where, f"is {_kind(value)}, not a tensor", "Choose the file with the model's weights alone.")
    tensor = value.detach()
    is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not is_plain or tensor.dtype not in WRITABLE_DTYPES or tensor.is_conj() or tensor.is_neg():
        kind = printable(f"{tensor.dtype}, {tensor.layout}, {tensor.device}".replace("torch.", ""))
        raise Problem(where, f"is a tensor of a kind that no model is trained from ({kind})", SAVE_AGAIN)
    return tensor


def _kind(value: Any) -> str:
    names = {int: "a number", float: "a number", bool: "true or false", str: "a text", list: "a list", dict: "a table"}
    return names.get(type(value), f"an object of {printable(type(value).__name__)}")
