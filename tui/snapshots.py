"""The frozen values that the follower posts and the screens are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.run.directory import RunDirectory
    from engine.run.endings.causes import Ending
    from engine.run.liveness import Liveness
    from engine.run.summary import RunStateName
    from engine.run.telemetry.events import RunState
    from engine.seal.ability import Ability
    from engine.spec import RunSpec
    from profiles.hardware import Hardware


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """All that the monitor shows of one run at one moment."""

    run: RunDirectory
    state: RunState
    liveness: Liveness
    spec: RunSpec | None = None
    """None when spec.toml cannot be read; `trouble` then says why."""
    log: tuple[str, ...] = ()
    """The last lines of engine.log, without control characters."""
    trouble: str = ""
    ending: Ending | None = None
    """How and why it ended, or broke off; None for a live run."""

    @property
    def stalled(self) -> bool:
        """Nothing was heard of the worker for much longer than usual."""
        return self.liveness == "live" and bool(self.state.stall)

    @property
    def paused(self) -> bool:
        """It waits for a person to make room on the disk."""
        return self.liveness == "live" and self.state.phase == "paused"

    @property
    def doing(self) -> str:
        """What it does while it prepares, where that has words of its own: "testing the seal"."""
        return self.state.phase_detail if self.liveness == "live" and self.state.tests_seal else ""

    @property
    def writes(self) -> bool:
        """Whether the model can be talked with; one that classifies or embeds cannot."""
        return self.spec is None or self.spec.objective.writes

    @property
    def word(self) -> RunStateName:
        """The state in the one word used everywhere: running, queued, preparing, finished, stopped or failed."""
        if self.liveness == "live":
            if self.state.phase == "queued":
                return "queued"
            return "preparing" if self.state.phase in ("preparing", "loading") else "running"
        if self.ending is not None:
            return self.ending.outcome
        if self.state.outcome:
            return self.state.outcome
        return "preparing" if self.liveness == "never started" else "failed"


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware now, and who takes its memory."""

    hardware: Hardware
    memory_users: tuple[MemoryUser, ...] = ()
    """Of RAM, largest first."""
    our_pids: frozenset[int] = frozenset()
    """The processes of finetui's runs."""
    seal: Ability | None = None
    """What this machine can hold; None until it was tried."""


@dataclass(frozen=True, slots=True)
class MemoryUser:
    """A process that takes much RAM. `ours` when it belongs to a run of finetui."""

    name: str
    user: str
    resident_bytes: int
    ours: bool = False


def looks_different(before: Machine, after: Machine) -> bool:
    """Whether a person would see a difference: memory by half a percent, a gauge by a step of its scale, what it can
    hold of a seal."""
    old, new = before.hardware, after.hardware
    if len(old.gpus) != len(new.gpus) or old.notes != new.notes or before.seal != after.seal:
        return True
    pairs: list[tuple[float, float, float]] = []
    pairs.append((old.ram.available_bytes, new.ram.available_bytes, new.ram.total_bytes / 200))
    pairs.append((old.disk.free_bytes, new.disk.free_bytes, new.disk.total_bytes / 200))
    for was, now in zip(old.gpus, new.gpus, strict=True):
        if [process.pid for process in was.processes] != [process.pid for process in now.processes]:
            return True
        pairs.append((was.used_bytes, now.used_bytes, now.total_bytes / 200))
        pairs += [(was.celsius or 0, now.celsius or 0, 1), (was.watts or 0, now.watts or 0, 5)]
        pairs.append((was.share or 0, now.share or 0, 0.02))
    return any(abs(now - was) >= step for was, now, step in pairs)
