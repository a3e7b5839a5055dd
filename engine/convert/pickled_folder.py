"""A model's folder whose weights are pickles: which files hold them, told from names and sizes. Opens none of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from profiles.bounded_files import astray, file_size, looks_wrong, read_bytes, read_json
from profiles.problem import Problem, printable
from profiles.shapes.model_folder import INDEX_LIMIT_BYTES, PICKLES, entry_names, require_model_folder
from profiles.shapes.safetensors_header import COPY_AGAIN

_WHOLE = "pytorch_model.bin"
_INDEX = "pytorch_model.bin.index.json"
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.bin")
# Meta's own layout: each file has a slice of every tensor, which only Meta's code puts together.
_SLICE = re.compile(r"consolidated\.\d+\.pth")
# What training tools leave beside a model, and which is no part of it.
_NO_WEIGHTS = re.compile(r"optimizer|scheduler|rng_state|training_args|scaler|trainer_state|global_step")
_COPIED_ENDINGS = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".vocab", ".md")
_COPIED_NAMES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")
_NOT_COPIED = ("trainer_state.json", "adapter_config.json")
_COPIED_LIMIT_BYTES = 1 << 28
"""The largest tokenizer.json of a published model has 34 MB."""
_HEAD_BYTES = 8


@dataclass(frozen=True, slots=True)
class PickledModel:
    """What is to be converted. Names are of files in `folder`."""

    folder: Path
    files: tuple[str, ...]
    """With weights, in their order."""
    sizes: tuple[int, ...]
    """Bytes of each."""
    weight_map: dict[str, str] | None
    """Which tensor is in which file, as the folder's index says; None without one."""
    others: tuple[str, ...]
    """Small files that go along: configuration, tokenizer, licence."""
    left_out: tuple[str, ...]
    """Python files, which do not."""

    @property
    def weight_bytes(self) -> int:
        return sum(self.sizes)


def find_pickles(folder: Path) -> PickledModel:
    """Raises Problem for a folder that is no model's, has safetensors already, or whose weights cannot be told."""
    require_model_folder(folder)
    names = entry_names(folder)
    if found := sorted(name for name in names if name.endswith(".safetensors")):
        raise Problem(str(folder), f"has safetensors already ({printable(found[0])})", "Use the folder as it is.")
    weight_map = _weight_map(folder, names) if _INDEX in names else None
    files = tuple(sorted(set(weight_map.values()))) if weight_map else _told_from_names(folder, names)
    sizes = tuple(_checked_size(folder / name) for name in files)
    others = tuple(sorted(name for name in names if _goes_along(folder, name)))
    left_out = tuple(sorted(name for name in names if name.endswith(".py")))
    return PickledModel(folder, files, sizes, weight_map, others, left_out)


def _weight_map(folder: Path, names: set[str]) -> dict[str, str]:
    path = folder / _INDEX
    found = read_json(path, INDEX_LIMIT_BYTES).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise Problem(str(path), "has no weight_map", COPY_AGAIN)
    for tensor, name in found.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise Problem(
                f"{path}, tensor {printable(tensor)}", f"names {printable(repr(name))}, no file name here", COPY_AGAIN
            )
    if absent := sorted(set(found.values()) - names):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise Problem(
            str(path), f"names {printable(absent[0])}{more}, which the folder does not have", "Copy the missing files."
        )
    return found


def _told_from_names(folder: Path, names: set[str]) -> tuple[str, ...]:
    if _WHOLE in names:
        return (_WHOLE,)
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    weights = [name for name in pickles if not _NO_WEIGHTS.search(name)]
    if not weights:
        what = f"has no model weights: {printable(pickles[0])} is another part of a training" if pickles else "has none"
        raise Problem(str(folder), f"{what}, and no pickled weights (.bin, .pt, .pth)", "Copy the weights into it.")
    if any(_SLICE.fullmatch(name) for name in weights):
        raise Problem(
            str(folder),
            f"has its weights in Meta's own layout ({printable(weights[0])}), with other names than transformers'",
            "Choose the version of this model that transformers loads.",
        )
    shards = [match for name in weights if (match := _SHARD.fullmatch(name))]
    if shards and len(shards) == len(weights):
        if len({match[1] for match in shards}) > 1 or len(shards) != int(shards[0][3]):
            raise Problem(
                str(folder), f"has {len(shards)} of the {int(shards[0][3])} weight files that their names speak of",
                "Copy the missing ones.",
            )  # fmt: skip
        return tuple(weights)
    if len(weights) > 1:
        named = ", ".join(map(printable, weights[:3]))
        raise Problem(
            str(folder),
            f"has {len(weights)} pickles, and nothing tells which is the model ({named})",
            "Leave only the one with the weights in a copy of the folder.",
        )
    return (weights[0],)


def _checked_size(path: Path) -> int:
    size = file_size(path)
    if wrong := looks_wrong(path, size):
        raise Problem(str(path), wrong, COPY_AGAIN)
    if read_bytes(path, _HEAD_BYTES).startswith(b"GGUF"):
        raise Problem(str(path), "is a GGUF file under another name", "Choose the original model.")
    return size


def _goes_along(folder: Path, name: str) -> bool:
    """Whether the converted folder gets a copy. Never code, and nothing of a link that leads to something else."""
    if name.endswith(".index.json") or name in _NOT_COPIED:
        return False
    if not name.endswith(_COPIED_ENDINGS) and not name.startswith(_COPIED_NAMES):
        return False
    path = folder / name
    try:
        return astray(path) is None and file_size(path) <= _COPIED_LIMIT_BYTES
    except Problem:
        return False  # a folder, a pipe: nothing that a model needs
