"""The other runs that matter to one that waits: those with a claim, and those with a worker, read once for a look."""

from __future__ import annotations

from dataclasses import dataclass

from engine.run.directory import RunDirectory
from engine.run.processes.identity import ProcessIdentity
from engine.run.processes.recorded import recorded_processes
from engine.run.waiting.claims import Claim, is_live, left_claim, other_runs


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A run with its `claim`, if its engine lives (`live`) or died with one, and its `worker`, while that lives."""

    run: RunDirectory
    claim: Claim | None
    live: bool
    worker: ProcessIdentity | None

    def waits_for(self, device: str) -> bool:
        return self.live and self.claim is not None and self.claim.waiting and self.claim.device == device

    def was_promised(self, device: str) -> bool:
        """Whether it has memory of `device`, or may take it at any moment."""
        return self.live and self.claim is not None and not self.claim.waiting and self.claim.device == device

    def trains_on(self, device: str) -> bool:
        """Whether it is on `device`, or just about to be. Where a run that does not wait has not said yet what it will
        train on (its seal is tried first, and its worker started), it may be this device."""
        if self.claim is not None and self.claim.device != device:
            return False
        waits = self.claim is not None and self.claim.waiting
        return self.worker is not None or (self.live and not waits)


def neighbours(run: RunDirectory | None) -> list[Neighbour]:
    """Those of `run`, the newest first; of all runs without one. Raises Problem when the runs cannot be read."""
    found = []
    for other in other_runs(run):
        claim = left_claim(other)
        recorded = recorded_processes(other)
        engine, worker = recorded.get("supervisor"), recorded.get("worker")
        live = is_live(other) if claim is not None else engine is not None and engine.is_alive()
        worker = worker if worker is not None and worker.is_alive() else None
        if live or worker is not None:
            found.append(Neighbour(other, claim, live, worker))
    return found
