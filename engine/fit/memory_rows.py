"""Measured memory kept on this machine, a file a device: what runs took, beside what was predicted. No torch.

FINETUI_HOME/measured/<device>.jsonl holds one row a line, in the columns of profiles.learnt; it may be deleted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.home import home
from profiles.bounded_files import read_bytes
from profiles.geometry import Geometry
from profiles.learnt import FORMULA, Learnt, model_key, shipped_rows
from profiles.memory import MemoryEstimate, estimate
from profiles.problem import Problem
from profiles.settings import Settings

# About 400 rows: more than count (learnt.NEWEST_ROWS) for a dozen models, read in a few milliseconds.
_FILE_LIMIT_BYTES = 256 << 10

# Where the trial step and the training that follows do not go.
_OTHER_PHASES = ("loading", "answers", "saving")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a run was predicted to take, and from what."""

    geometry: Geometry
    settings: Settings
    estimate: MemoryEstimate
    device_name: str
    capability: tuple[int, int] | None = None
    """The GPU's compute capability, as the estimate was made with."""


def measured_folder() -> Path:
    """Where this machine's rows are."""
    return home() / "measured"


def load_learnt() -> Learnt:
    """What the shipped rows and those of this machine teach, the latter as the newer ones."""
    return Learnt.from_rows([*shipped_rows(), *read_rows()])


def read_rows() -> Iterator[dict[str, Any]]:
    """The rows of this machine, oldest first in each file; what is damaged is passed over."""
    for path in sorted(measured_folder().glob("*.jsonl")):
        # Trainers write here, and one that was taken over may have put anything there: a pipe would be waited for.
        with suppress(Problem):
            for line in read_bytes(path, 2 * _FILE_LIMIT_BYTES).splitlines():
                with suppress(ValueError, RecursionError):
                    row = json.loads(line)
                    if isinstance(row, dict):
                        yield row


@dataclass(frozen=True, slots=True)
class Prediction:
    """Bytes at the peak: of tensors and of the process as the formulas have them, and of the process as it is believed
    after what earlier runs taught. Rows keep the formulas', or a correction would be learnt on top of itself."""

    allocated_bytes: int
    process_bytes: int
    believed_bytes: int


def predict_for_tokens(expected: Expected, tokens: int, *, steps_only: bool = False) -> Prediction:
    """What a run whose micro-batches have at most `tokens` tokens takes; with `steps_only` without its loading,
    answers and saving."""
    settings = expected.settings
    length = max(1, -(-tokens // (settings.tokens // settings.sequence_length)))
    predicted = estimate(expected.geometry, replace(settings, sequence_length=length), expected.capability)
    allocated, context = predicted.allocated_bytes, predicted.components["context"]
    if steps_only:
        steps = [size for name, size in predicted.phases.items() if not name.startswith(_OTHER_PHASES)]
        allocated = max(steps, default=allocated)
    plain = estimate(expected.geometry, settings, expected.capability).components["context"]
    believed = context * expected.estimate.components["context"] / plain
    return Prediction(allocated, allocated + context, allocated + round(believed))


def remember(
    expected: Expected | None,
    predicted: Prediction | None = None,
    *,
    process_bytes: int,
    allocated_bytes: int | None = None,
    reserved_bytes: int | None = None,
    outcome: str = "ok",
) -> None:
    """Keep what a run took. `predicted` stands against it, by default the prediction of the run as it was asked for.
    A disk that is full or read-only costs the row, and nothing else."""
    if expected is None:
        return
    settings = expected.settings
    predicted = predicted or predict_for_tokens(expected, settings.tokens)
    row = {
        **asdict(settings),
        "device": expected.device_name,
        "model": model_key(expected.geometry),
        "formula": FORMULA,
        "predicted_allocated_bytes": predicted.allocated_bytes,
        "predicted_process_bytes": predicted.process_bytes,
        "allocated_bytes": allocated_bytes,
        "reserved_bytes": reserved_bytes,
        "process_bytes": process_bytes,
        "outcome": outcome,
    }
    with suppress(OSError):
        _append(measured_folder() / f"{_slug(expected.device_name)}.jsonl", json.dumps(row).encode() + b"\n")


def _append(path: Path, line: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size + len(line) > _FILE_LIMIT_BYTES:
        kept = path.read_bytes()[-_FILE_LIMIT_BYTES // 2 :].partition(b"\n")[2]
        replacement = path.with_name(f".{path.name}.{os.getpid()}")
        replacement.write_bytes(kept)
        replacement.replace(path)
    # One write, so that two runs that end together do not mix their lines.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "device"
