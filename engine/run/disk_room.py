"""Whether the disk has room for what a run will write, before it starts and before every save."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from engine.run.sizes import size_text
from profiles.problem import Problem

if TYPE_CHECKING:
    from engine.spec import RunSpec
    from profiles.disk_plan import DiskPlan
    from profiles.geometry import Geometry

# What a file system takes besides the files' own bytes: whole blocks, and its own tables.
_FILE_SYSTEM_SHARE, _FILE_SYSTEM_BYTES = 1 / 256, 1 << 17
# The Rust library behind safetensors tells the system's error number in words only.
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")
_FULL = (errno.ENOSPC, errno.EDQUOT)


def free_bytes(path: Path) -> int:
    """What may still be written on the disk of `path`, which need not exist yet. Raises OSError."""
    from profiles.machine.host import read_disk

    return read_disk(path).free_bytes


def with_overhead(size: int) -> int:
    """The free bytes it takes to write files of `size` bytes."""
    return size + round(size * _FILE_SYSTEM_SHARE) + _FILE_SYSTEM_BYTES


def disk_is_full(error: BaseException | None) -> bool:
    """Whether a write failed for want of room, or because a quota is used up."""
    if error is None:
        return False
    told = _RUST_ERROR.search(str(error))
    number = int(told[1]) if told else getattr(error, "errno", None)
    return number in _FULL


def is_read_only(path: Path) -> bool:
    """Whether the disk of `path`, which need not exist yet, is mounted so that nobody can write there. Raises
    OSError."""
    there = next(each for each in (path, *path.parents) if each.exists())
    return bool(os.statvfs(there).f_flag & os.ST_RDONLY)


def require_disk(spec: RunSpec, root: Path) -> None:
    """Raises Problem when the disk of `root` has no room for what a run of `spec` writes in any case.

    That is one checkpoint and its output, and more where the number of steps is given; the worker, which knows it,
    checks again. A model that cannot be read is the worker's to tell.
    """
    from profiles.geometry import read_geometry

    try:
        plan = disk_plan(spec, read_geometry(spec.model.path), spec.train.max_steps or 1)
        free = free_bytes(root)
    except (Problem, OSError):
        return
    require_room(plan, spec, free, root)


def disk_plan(spec: RunSpec, geometry: Geometry, steps: int, rows: int = 0) -> DiskPlan:
    """What `steps` steps of `spec` write; `rows` are all that are learnt from or measured on."""
    from profiles.disk_plan import plan_disk
    from profiles.settings import Settings

    settings = Settings(
        method=spec.method.kind,
        device="cpu",
        compute_dtype="fp32",
        attention="sdpa",
        sequence_length=spec.data.sequence_length,
        rank=spec.method.rank,
        targets=spec.method.targets,
        trained_layers=spec.method.trained_layers,
        optimizer=spec.optimizer.kind,
        objective=spec.objective.kind,
    )
    return plan_disk(
        geometry,
        settings,
        steps=steps,
        save_every=spec.checkpoint.every_steps,
        keep=spec.checkpoint.keep,
        keeps_best=bool(spec.data.held_out or spec.data.held_out_share),
        tokenizer_bytes=tokenizer_bytes(spec.model.path),
        rows=rows,
    )


def require_room(plan: DiskPlan, spec: RunSpec, free: int, root: Path) -> None:
    """Raises Problem when `free` bytes are too few for `plan`; what is needed, what is free, and what helps."""
    needed = with_overhead(plan.total_bytes)
    if needed <= free:
        return
    checkpoints = "a checkpoint" if plan.checkpoints == 1 else f"{plan.checkpoints} checkpoints at once, each"
    fix = "Free some space there, or set FINETUI_HOME to a folder on another disk"
    raise Problem(
        f"the disk of {root}",
        f"has {size_text(free)} free, and this run needs {size_text(needed)}: {checkpoints} of "
        f"{size_text(plan.checkpoint_bytes)}, and {size_text(plan.output_bytes)} for what it hands over",
        f"{fix}, or lower checkpoint.keep ({spec.checkpoint.keep})." if plan.checkpoints > 2 else f"{fix}.",
    )


def tokenizer_bytes(model: Path) -> int:
    """The files of a model's folder that are neither weights nor code: about what is written beside tuned weights."""
    try:
        files = [path for path in model.iterdir() if path.suffix in (".json", ".jinja", ".model", ".txt")]
        return sum(path.stat().st_size for path in files if not path.name.endswith(".index.json"))
    except OSError:
        return 0
