"""Which memory the live runs wait for or were promised: one small file in each run's folder, read by the others.

A run that has just started holds little yet; without its promise the next in line would take the same memory for free.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from engine.run.directory import RunDirectory, list_runs, write_atomically
from engine.run.processes.lock import lock_holder


@dataclass(frozen=True, slots=True)
class Claim:
    """A run's claim on one device. `since` is in unix seconds; the line is ordered by it, then by the run's name."""

    device: str
    needed_bytes: int
    since: float
    waiting: bool


def write_claim(run: RunDirectory, claim: Claim) -> None:
    """Put `claim` in the place of the run's last one. Raises OSError."""
    write_atomically(run.claim_path, json.dumps(asdict(claim)).encode() + b"\n")


def read_claim(run: RunDirectory) -> Claim | None:
    """The claim of another run whose engine lives; None when there is none, or it is no claim."""
    try:
        values: Any = json.loads(run.claim_path.read_bytes())
        claim = Claim(
            str(values["device"]), int(values["needed_bytes"]), float(values["since"]), bool(values["waiting"])
        )
        return claim if lock_holder(run.lock_path) is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def drop_claim(run: RunDirectory) -> None:
    """Claim nothing more. A claim that cannot be removed ends with the run's lock."""
    with suppress(OSError):
        run.claim_path.unlink(missing_ok=True)


def claims_of_others(run: RunDirectory | None, device: str) -> list[tuple[RunDirectory, Claim]]:
    """The claims of all live runs but `run` on `device`, in the order of the line."""
    found = [(other, claim) for other in other_runs(run) if (claim := read_claim(other)) is not None]
    on_device = [(other, claim) for other, claim in found if claim.device == device]
    return sorted(on_device, key=lambda pair: (pair[1].since, pair[0].name))


def other_runs(run: RunDirectory | None) -> list[RunDirectory]:
    """All runs but `run`, told apart by their names, since a process that asks after its own lock loses it."""
    return [other for other in list_runs() if run is None or other.name != run.name]
