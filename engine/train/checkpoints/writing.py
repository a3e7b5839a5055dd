"""How a checkpoint becomes one: staged, hashed, flushed, read back, and only then seen.

    checkpoints/step-000500/
        trainable.safetensors   the parameters that learn, in their own precision
        optimizer.safetensors   the optimizer's tensors, by parameter name
        random.safetensors      states of the random generators
        state.json              step, best held-out loss, the optimizer's plain values
        manifest.json           step, circumstances, size and SHA-256 of each file above; written last

A checkpoint is staged in a hidden folder beside the others. Each file is hashed while it is written and flushed to the
disk, then the folder; everything is read back from the disk and compared, the largest file while the others are
written; then one rename makes it appear, and the folder above is flushed. Older ones are removed only after that.
Nothing is a pickle. Tensors are written one at a time: a save needs the largest of them more on the host, not all of
them twice.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from engine.run.checkpoints.manifest import (
    MANIFEST,
    OPTIMIZER,
    RANDOM,
    STATE,
    TRAINABLE,
    DamagedError,
    Manifest,
    checkpoint_path,
    read_manifest,
)
from engine.run.checkpoints.refusals import refusal
from engine.run.checkpoints.rotation import DAMAGED, STAGING, remove_leftovers, rotate
from engine.run.checkpoints.sealed_file import write_sealed
from engine.run.checkpoints.verifying import known_damage, remember_good, verify_file
from engine.run.durable_files import sync
from engine.train.checkpoints.finite import require_finite
from engine.train.checkpoints.optimizer_state import optimizer_state
from engine.train.checkpoints.progress import Progress
from engine.train.checkpoints.random_state import RandomState
from engine.train.checkpoints.tensor_file import write_tensors
from profiles.problem import Problem

# A tensor's entry in a header and its plain values; random states, the manifest and the folder.
_HEADER_BYTES, _OTHER_BYTES = 256, 1 << 15


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is now on the disk, and was read back from it."""

    path: Path
    total_bytes: int
    seconds: float
    remarks: tuple[str, ...] = ()
    """What was noticed of older checkpoints, in words."""


def save_checkpoint(
    root: Path,
    progress: Progress,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    *,
    keep: int,
    circumstances: Mapping[str, str] | None = None,
) -> Saved:
    """Write a checkpoint of `progress.step` under `root`, then remove all good ones but the newest `keep` and the best.

    `circumstances` go into its manifest. Raises NotFiniteError when a tensor holds something else than numbers, and
    Problem when the disk is full, cannot be written or gives back something else; what was there before is untouched.
    """
    started = time.monotonic()
    final = checkpoint_path(root, progress.step)
    try:
        if not final.is_dir() or known_damage(final) is not None:
            _publish(root, final, progress, parameters, optimizer, dict(circumstances or {}))
        sync(root)
    except (OSError, DamagedError) as error:
        reason, fix = refusal(error)
        raise Problem(str(root), f"the checkpoint of step {progress.step} was not saved: {reason}", fix) from error
    remarks = rotate(root, keep, progress.best_step)
    return Saved(final, _tree_bytes(final), time.monotonic() - started, tuple(remarks))


def checkpoint_bytes(parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """Bytes that a checkpoint's files take now: parameters, the optimizer's tensors, random state, headers."""
    tensors, _ = optimizer_state(optimizer, parameters)
    held = [*parameters.values(), *tensors.values()]
    return sum(tensor.numel() * tensor.element_size() + _HEADER_BYTES for tensor in held) + _OTHER_BYTES


def _publish(
    root: Path,
    final: Path,
    progress: Progress,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    circumstances: dict[str, str],
) -> None:
    """Have a checkpoint appear at `final`. Raises NotFiniteError, OSError, and DamagedError where the disk gives back
    something else."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()  # what an optimizer keeps in pages is read by the host, outside the device's queue
    tensors, values = optimizer_state(optimizer, parameters)
    require_finite({**parameters, **tensors})
    # The process's number, so that a worker that lost its run can never write into another's folder.
    staging = root / f"{STAGING}{progress.step:06d}.{os.getpid()}"
    root.mkdir(parents=True, exist_ok=True)
    remove_leftovers(root)
    try:
        staging.mkdir(mode=0o700)
        with ThreadPoolExecutor(1, thread_name_prefix="read back") as other_thread:
            files = {OPTIMIZER: write_tensors(staging / OPTIMIZER, tensors)}
            # The largest file, while the others are written and read.
            largest = other_thread.submit(verify_file, staging / OPTIMIZER, files[OPTIMIZER], from_disk=True)
            files[TRAINABLE] = write_tensors(staging / TRAINABLE, parameters)
            files[RANDOM] = write_tensors(staging / RANDOM, RandomState.now().to_tensors())
            files[STATE] = write_sealed(staging / STATE, _state(progress, values))
            manifest = Manifest(progress.step, circumstances, files)
            write_sealed(staging / MANIFEST, manifest.to_bytes())
            sync(staging)
            for name in (TRAINABLE, RANDOM, STATE):
                verify_file(staging / name, files[name], from_disk=True)
            largest.result()
        if read_manifest(staging) != manifest:
            raise DamagedError(f"{MANIFEST} is not what was written")
        if final.exists():  # damaged: keep it for a person to look at, out of the way
            final.rename(root / f"{DAMAGED}{progress.step:06d}-{time.time_ns()}")
        staging.rename(final)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    remember_good(final)


def _state(progress: Progress, values: Mapping[str, Mapping[str, object]]) -> bytes:
    return json.dumps({"progress": asdict(progress), "optimizer": values}, indent=1).encode()


def _tree_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
