"""Pickles to safetensors, one file after another: opened, looked at, written, read back, compared bit by bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from engine.child_process import Send
from engine.convert.archive import SAVE_AGAIN
from engine.convert.opening import open_pickle
from engine.run.sizes import size_text
from engine.train.checkpoints.tensor_file import read_tensors, write_tensors
from profiles.bounded_files import open_regular
from profiles.problem import Problem, printable

INDEX = "model.safetensors.index.json"
# Tied tensors are written each for itself; a pickle that claims more than this repeats the same bytes again and again.
_MOST_TIMES = 2
_ROOM_BYTES = 1 << 20
_NAMED = 3
_PIECE_BYTES = 1 << 20


def convert(
    folder: Path,
    files: Sequence[str],
    weight_map: Mapping[str, str] | None,
    others: Iterable[str],
    into: Path,
    send: Send,
) -> dict[str, Any]:
    """Write the weights of `files` into the folder `into` and copy `others`. Returns what there is to tell: tensors,
    bytes, notes. Raises Problem."""
    total = sum((folder / name).stat().st_size for name in files)
    done = written = 0
    placed: dict[str, str] = {}
    notes: list[str] = []
    for number, name in enumerate(files, 1):
        send("progress", detail=f"reading {name}", done=done, total=total)
        tensors = open_pickle(folder / name)
        _check_names(folder, name, tensors, placed, weight_map)
        size = _check_size(folder / name, tensors, into)
        shared = _shared(tensors)
        shard = "model.safetensors" if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        send("progress", detail=f"writing {shard}", done=done, total=total)
        write_tensors(into / shard, tensors, {"format": "pt"})
        _verify(into / shard, tensors)
        placed |= dict.fromkeys(tensors, shard)
        written += size
        done += (folder / name).stat().st_size
        if shared:
            named = ", ".join(printable(each) for each in shared[:_NAMED])
            more = f" and {len(shared) - _NAMED} more" if len(shared) > _NAMED else ""
            notes.append(f"{named}{more} shared their numbers in {name}; each has its own now, with the same values.")
    if weight_map and (absent := sorted(weight_map.keys() - placed.keys())):
        raise Problem(
            f"{folder / weight_map[absent[0]]}, tensor {printable(absent[0])}",
            "is not in this file, though the index says so",
            "Copy the model's files again.",
        )
    if len(files) > 1:
        index = {"metadata": {"total_size": written}, "weight_map": dict(sorted(placed.items()))}
        (into / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for name in others:
        with open_regular(folder / name) as source, (into / name).open("xb") as copy:
            shutil.copyfileobj(source, copy, _PIECE_BYTES)
    send("progress", detail="compared bit by bit", done=total, total=total)
    return {"tensors": len(placed), "bytes": written, "notes": notes}


def _check_names(
    folder: Path, file: str, tensors: Iterable[str], placed: Mapping[str, str], told: Mapping[str, str] | None
) -> None:
    for name in tensors:
        if name in placed:
            raise Problem(
                f"{folder / file}, tensor {printable(name)}", "is in another weight file too", "Copy the files again."
            )
        if told is not None and told.get(name) != file:
            place = f"places it in {printable(told[name])}" if name in told else "does not know it"
            raise Problem(
                f"{folder / file}, tensor {printable(name)}",
                f"is in this file, and the index {place}",
                "Copy the model's files again.",
            )


def _check_size(path: Path, tensors: Mapping[str, torch.Tensor], into: Path) -> int:
    """Bytes that the tensors take, written each for itself. Raises Problem for more than the file can mean, or than the
    disk has."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    stored = path.stat().st_size
    if size > _MOST_TIMES * stored + _ROOM_BYTES:
        raise Problem(
            str(path),
            f"speaks of {size:,} bytes of tensors and has {stored:,}: it repeats the same numbers",
            SAVE_AGAIN,
        )
    free = shutil.disk_usage(into).free
    if size > free:
        raise Problem(
            str(into.parent),
            f"has {size_text(free)} free, and the next file takes {size_text(size)}",
            "Free some space, or give a folder on another disk.",
        )
    return size


def _shared(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of tensors that have their numbers in common with another, in order."""
    spans = sorted(
        (begin, begin + extent, name)
        for name, tensor in tensors.items()
        if (extent := _extent(tensor))
        for begin in [tensor.data_ptr()]
    )
    found: set[str] = set()
    reached, last = 0, ""
    for begin, end, name in spans:
        if begin < reached:
            found |= {last, name}
        if end > reached:
            reached, last = end, name
    return sorted(found)


def _extent(tensor: torch.Tensor) -> int:
    """Bytes from its first number to its last."""
    if not tensor.numel():
        return 0
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (steps + 1) * tensor.element_size()


def _verify(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    left = dict(tensors)
    for name, read in read_tensors(path):
        meant = left.pop(name)
        same = read.dtype == meant.dtype and read.shape == meant.shape
        if not same or not torch.equal(_bits(read), _bits(meant)):
            where = f"{path}, tensor {printable(name)}"
            raise Problem(where, "did not come back from the disk as written", "Try again, on another disk.")
    assert not left, "every tensor was written"


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
