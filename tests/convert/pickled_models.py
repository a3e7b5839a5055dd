"""Model folders whose weights are pickles, made from a small real one: as torch.save writes them, and hostile ones."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

WHOLE = "pytorch_model.bin"


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors files."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def pickled(model: Path, folder: Path, shards: int = 1, *, zipped: bool = True) -> Path:
    """The model in `model`, written to `folder` as former libraries did."""
    weights = weights_of(model)
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    if shards == 1:
        save(weights, folder / WHOLE, zipped=zipped)
        return folder
    names = sorted(weights)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        mine = names[number::shards]
        save({name: weights[name] for name in mine}, folder / file, zipped=zipped)
        weight_map |= dict.fromkeys(mine, file)
    (folder / f"{WHOLE}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def save(value: Any, path: Path, *, zipped: bool = True) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)


class Calls:
    """Pickled, it is a call of `function`: what opening the file would run."""

    def __init__(self, function: Any, *arguments: Any):
        self._called = (function, arguments)

    def __reduce__(self) -> Any:
        return self._called


def hostile(mark: Path) -> Mapping[str, Any]:
    """What may lie in a file instead of weights, and would make the file `mark` if it were run."""
    call = Calls(os.system, f"touch {mark}")
    one, many = torch.ones(1), torch.zeros(2**18)
    return {
        "a call in place of a tensor": {"a": call},
        "a call beside tensors": {"a": one, "b": [{"c": call}]},
        "eval": {"a": Calls(eval, f"open({str(mark)!r}, 'w')")},
        "a number": {"a": one, "epoch": 3},
        "a list": [one],
        "an optimizer": torch.optim.AdamW([torch.nn.Parameter(one)]).state_dict(),
        "a training's checkpoint": {"state_dict": {"a": one}, "step": 1},
        "a key that is no text": {1: one},
        "numbers of nothing": {"a": torch.zeros(1).expand(10**6, 10**6)},
        "the same numbers a thousand times": {f"a{number}": many for number in range(1000)},
        "a sparse tensor": {"a": torch.eye(3).to_sparse()},
        "complex numbers": {"a": torch.zeros(3, dtype=torch.complex64)},
        "no tensor": {},
        "memory": {"a": Calls(bytearray, 1 << 40)},
        "a reserved name": {"__metadata__": one},
    }


def repack(path: Path) -> None:
    """The same archive, its members packed: mapped as they are they would be taken for other numbers."""
    with zipfile.ZipFile(path) as old:
        members = {each.filename: old.read(each) for each in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in members.items():
            new.writestr(name, data)


def plain_pickle(value: Any, path: Path) -> None:
    """By Python itself, with its present protocol, without torch."""
    path.write_bytes(pickle.dumps(value))
