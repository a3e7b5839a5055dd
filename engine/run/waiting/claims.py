"""Which memory the live runs wait for or were promised: one small file in each run's folder, read by the others.

A run that has just started holds little yet; without its promise the next in line would take the same memory for free.
"""

from __future__ import annotations

import json
import math
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.run.directory import RunDirectory, list_runs
from engine.run.durable_files import write_atomically
from engine.run.processes.lock import lock_holder

# A claim has some hundred bytes, and the file of the line one name for each run that waits.
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Claim:
    """A run's claim on one device. `since`, in unix seconds, orders the line where nothing else does."""

    device: str
    needed_bytes: int
    since: float
    waiting: bool
    after: str = ""
    """The name of the run that is to end first; empty where there is none, or it has ended."""
    beside: bool = False
    """Whether the run may train while others of finetui do on its device."""


def write_claim(run: RunDirectory, claim: Claim) -> None:
    """Put `claim` in the place of the run's last one. Raises OSError."""
    write_atomically(run.claim_path, json.dumps(asdict(claim)).encode() + b"\n")


def read_claim(run: RunDirectory) -> Claim | None:
    """The claim of another run whose engine lives; None when there is none, or it is no claim."""
    claim = left_claim(run)
    return claim if claim is not None and is_live(run) else None


def is_live(run: RunDirectory) -> bool:
    """Whether the engine of another run lives, as far as can be told."""
    try:
        return lock_holder(run.lock_path) is not None
    except OSError:
        return False


def left_claim(run: RunDirectory) -> Claim | None:
    """The claim in a run's folder, whether its engine lives or died with it; None when there is none."""
    values = read_small_json(run.claim_path)
    try:
        claim = Claim(
            str(values["device"]),
            int(values["needed_bytes"]),
            float(values["since"]),
            values["waiting"] is True,
            str(values.get("after", "")),
            values.get("beside") is True,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return claim if math.isfinite(claim.since) and claim.needed_bytes >= 0 else None


def drop_claim(run: RunDirectory) -> None:
    """Claim nothing more. A claim that cannot be removed ends with the run's lock."""
    with suppress(OSError):
        run.claim_path.unlink(missing_ok=True)


def live_claims(besides: RunDirectory | None = None) -> list[tuple[RunDirectory, Claim]]:
    """The claims of all live runs but `besides`, in no order."""
    return [(run, claim) for run in other_runs(besides) if (claim := read_claim(run)) is not None]


def other_runs(run: RunDirectory | None) -> list[RunDirectory]:
    """All runs but `run`, told apart by their names, since a process that asks after its own lock loses it."""
    return [other for other in list_runs() if run is None or other.name != run.name]


def read_small_json(path: Path) -> Any:
    """What a small JSON file says; None where it is missing, damaged, no plain file, or larger than any of ours."""
    try:
        # A pipe that somebody put there would otherwise be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                return None
            return json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
