"""Which checkpoints stay: the newest good ones and the best; and whatever is damaged, for a person to look at."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.run.checkpoints.manifest import checkpoint_path, list_checkpoints
from engine.run.checkpoints.verifying import known_damage

STAGING, REMOVING, DAMAGED = ".staging-", ".removing-", ".damaged-"
"""How the hidden folders begin that are being written, are being removed, or made way for a good one of their step."""


def rotate(root: Path, keep: int, best_step: int | None) -> list[str]:
    """Remove all good checkpoints under `root` but the newest `keep` and the best one. Returns what a person should
    know: of the damaged ones, which stay and are counted as nothing, and of what could not be removed.

    The newest must have been verified just now: with a `keep` of one nothing else may be left.
    """
    remarks, kept = [], 0
    for path in reversed(list_checkpoints(root)):
        if (reason := known_damage(path)) is not None:
            remarks.append(f"{path.name} is damaged and not counted on: {reason}")
        elif kept < keep:
            kept += 1
        elif best_step is None or path != checkpoint_path(root, best_step):
            try:
                remove(path)
            except OSError as error:
                remarks.append(f"{path.name} could not be removed: {error.strerror}")
    return remarks


def remove(path: Path) -> None:
    """Remove a checkpoint. It loses its name first, so that half of one never looks like a checkpoint. Raises
    OSError."""
    doomed = path.with_name(f"{REMOVING}{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(root: Path) -> None:
    """Remove what a save or a removal that was killed left behind; damaged checkpoints stay."""
    for pattern in (f"{STAGING}*", f"{REMOVING}*"):
        for path in root.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
