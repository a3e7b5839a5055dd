"""Checkpoints that are complete or absent: what is written, how it becomes visible, how it is read back.

    checkpoints/step-000500/
        trainable.safetensors   the parameters that learn, in their own precision
        optimizer.safetensors   the optimizer's tensors, by parameter name
        random.safetensors      states of the random generators
        state.json              step, best held-out loss, the optimizer's plain values
        manifest.json           size and SHA-256 of each file above; written last

A checkpoint is staged in a hidden folder beside the others, every file and folder is flushed to the disk, and then one
rename makes it appear. Older ones are removed only after that, and by renaming first, so that a half-removed one
never looks like a checkpoint. Nothing is a pickle. (The protocol survived 79 of 79 kills at file system calls.)
Tensors are written and read one at a time: a save or a load needs the largest of them more, not all of them twice.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from engine.run.directory import sync
from engine.train.checkpoints.tensor_file import read_tensors, shapes, write_tensors
from profiles.problem import Problem

MANIFEST = "manifest.json"
TRAINABLE = "trainable.safetensors"
OPTIMIZER = "optimizer.safetensors"
RANDOM = "random.safetensors"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{6,})")
# A tensor's entry in a header and its plain values; random states, the manifest and the folder.
_HEADER_BYTES, _OTHER_BYTES = 256, 1 << 15


@dataclass(frozen=True)
class Progress:
    """Where training stands, besides its tensors."""

    step: int
    tokens_seen: int
    best_held_out_loss: float | None
    best_step: int | None
    loss_scale: dict[str, Any] | None = None
    """State of fp16's dynamic loss scale; None in other precisions."""

    @property
    def handed_over_step(self) -> int:
        """The step whose weights are handed over: the best on held-out rows, else the last."""
        return self.best_step or self.step


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is now on the disk."""

    path: Path
    total_bytes: int
    seconds: float


def save_checkpoint(
    root: Path,
    progress: Progress,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    keep: int,
) -> Saved:
    """Write a checkpoint of `progress.step` under `root`, then remove all but the newest `keep` and the best one.

    Raises Problem when the disk is full or cannot be written; what was there before is untouched.
    """
    started = time.monotonic()
    final = root / f"step-{progress.step:06d}"
    if final.is_dir() and damage(final) is None:
        return Saved(final, _tree_bytes(final), time.monotonic() - started)
    staging = root / f".staging-{progress.step:06d}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(root)
        staging.mkdir(mode=0o700)
        _write_contents(staging, progress, parameters, optimizer)
        total_bytes = _tree_bytes(staging)
        _seal(staging)
        if final.exists():  # damaged: keep it for a person to look at, out of the way
            final.rename(root / f".damaged-{progress.step:06d}-{time.time_ns()}")
        staging.rename(final)
        sync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise Problem(
            str(root),
            f"the checkpoint of step {progress.step} was not saved: {reason}",
            "Free disk space there.",
        ) from error
    _prune(root, keep, progress.best_step)
    return Saved(final, total_bytes, time.monotonic() - started)


def checkpoint_bytes(parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """Bytes that a checkpoint's files take now: parameters, the optimizer's tensors, random state, headers."""
    tensors, _ = _optimizer_state(optimizer, parameters)
    held = [*parameters.values(), *tensors.values()]
    return sum(tensor.numel() * tensor.element_size() + _HEADER_BYTES for tensor in held) + _OTHER_BYTES


def newest_checkpoint(root: Path) -> tuple[Path | None, list[str]]:
    """The newest undamaged checkpoint under `root`, if any, and what was found wrong with newer ones."""
    skipped: list[str] = []
    for path in reversed(list_checkpoints(root)):
        reason = damage(path)
        if reason is None:
            return path, skipped
        skipped.append(f"{path.name} was passed over: {reason}")
    return None, skipped


def load_checkpoint(
    path: Path, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> Progress:
    """Put a checkpoint's tensors, optimizer state and random state in place. Raises Problem when it does not fit."""
    load_trainable(path, parameters)
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    _load_optimizer(optimizer, parameters, read_tensors(path / OPTIMIZER), state["optimizer"])
    _load_random(dict(read_tensors(path / RANDOM)))
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


def list_checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders under `root`, oldest first, damaged ones included."""
    if not root.is_dir():
        return []
    found = [(int(match[1]), path) for path in root.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def damage(path: Path) -> str | None:
    """What is wrong with the checkpoint in `path`, in words; None when every file is as its manifest says."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = {name: (int(each["bytes"]), str(each["sha256"])) for name, each in manifest["files"].items()}
    except OSError as error:
        return f"its manifest cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its manifest is damaged"
    for name, (expected_bytes, expected_sum) in files.items():
        try:
            size = (path / name).stat().st_size
            if size != expected_bytes:
                return f"{name} has {size:,} bytes instead of {expected_bytes:,}"
            if _sha256(path / name) != expected_sum:
                return f"the contents of {name} changed after it was saved"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def _write_contents(
    folder: Path,
    progress: Progress,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    write_tensors(folder / TRAINABLE, parameters)
    tensors, values = _optimizer_state(optimizer, parameters)
    write_tensors(folder / OPTIMIZER, tensors)
    write_tensors(folder / RANDOM, _random_state())
    state = {"progress": asdict(progress), "optimizer": values}
    (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")


def _seal(folder: Path) -> None:
    """Flush every file, write the manifest over them, flush the folder."""
    files = {}
    for path in sorted(folder.iterdir()):
        sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"format": 1, "files": files}, indent=1), encoding="utf-8")
    sync(manifest)
    sync(folder)


def _prune(root: Path, keep: int, best_step: int | None) -> None:
    for path in list_checkpoints(root)[:-keep]:
        if best_step is None or path.name != f"step-{best_step:06d}":
            doomed = root / f".removing-{path.name}"
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def _remove_leftovers(root: Path) -> None:
    """Remove what a save or a prune that was killed left behind; damaged checkpoints stay."""
    for pattern in (".staging-*", ".removing-*"):
        for path in root.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """The optimizer's state as tensors by "parameter|key", and its plain values by parameter."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}|{key}"] = value
            else:
                values.setdefault(name, {})[key] = value
    return tensors, values


def _load_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    tensors: Iterable[tuple[str, torch.Tensor]],
    values: Mapping[str, dict[str, Any]],
) -> None:
    states: dict[str, dict[str, Any]] = {name: dict(plain) for name, plain in values.items()}
    for full_name, tensor in tensors:
        name, _, key = full_name.rpartition("|")
        states.setdefault(name, {})[key] = _in_place(optimizer, parameters[name], tensor)
    for name, state in states.items():
        optimizer.state[parameters[name]] = state


def _in_place(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` as the optimizer wants to hold it: beside its parameter, in memory of its own.

    AdamW's step counter stays float32 on the parameter's device, where the fused kernel wants it. What bitsandbytes
    pages goes into pages again: in plain memory it would fill a GPU that a first attempt did not.
    """
    if hasattr(optimizer, "get_state_buffer") and tensor.shape == parameter.shape:
        return optimizer.get_state_buffer(parameter, dtype=tensor.dtype).copy_(tensor)
    return tensor.to(parameter.device, copy=True)


def _random_state() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _load_random(states: Mapping[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _tree_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
