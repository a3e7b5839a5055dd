"""Whether a run's memory is free now, and who holds it if not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.run.directory import RunDirectory, runs_root
from engine.run.sizes import size_text
from engine.run.waiting.neighbours import Neighbour, neighbours
from profiles.problem import printable

if TYPE_CHECKING:
    from engine.spec import RunSpec
    from profiles.hardware import Hardware
    from profiles.memory import MemoryEstimate

MOST_HOLDERS = 3
_LEAST_HOLDING_SHARE = 0.01
"""Of the device's memory; a process below that is not named."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds memory of the device; `bytes` is None where the driver does not say."""

    name: str
    user: str
    pid: int
    bytes: int | None

    def __str__(self) -> str:
        held = f" holds {size_text(self.bytes)}" if self.bytes is not None else " is on it too"
        return f"{self.name} ({self.user}, pid {self.pid}){held}"


@dataclass(frozen=True, slots=True)
class Room:
    """What a run needs of its device and what is there for it now, in bytes.

    `free_bytes` leaves out what other runs of finetui were promised and have not taken yet; `usable_bytes` is that
    less the reserve that every plan keeps, and `reserve_bytes` is that reserve while nobody else is on the device.
    """

    device: str
    needed_bytes: int
    free_bytes: int
    usable_bytes: int
    total_bytes: int
    holders: tuple[Holder, ...]
    reserve_bytes: int = 0

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.usable_bytes

    @property
    def possible(self) -> bool:
        """Whether the run would fit if nobody else were on the device."""
        return self.needed_bytes + self.reserve_bytes <= self.total_bytes

    def sentence(self) -> str:
        """What is needed, what is free and who holds the rest, as the rest of a sentence about the run."""
        text = f"needs {size_text(self.needed_bytes)} of {self.device}, {size_text(self.free_bytes)} are free"
        if self.usable_bytes < self.needed_bytes <= self.free_bytes:
            text += f", {size_text(self.free_bytes - self.usable_bytes)} of them kept in reserve"
        return f"{text}: {'; '.join(map(str, self.holders))}" if self.holders else text

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"holders": [asdict(holder) for holder in self.holders]}


def room_for(spec: RunSpec, hardware: Hardware | None = None) -> Room:
    """The room for a run of `spec` on this machine, read now unless `hardware` was. Raises Problem for its model."""
    from profiles.hardware import probe

    hardware = hardware or probe(runs_root())
    return room_on(hardware, estimate_for(spec, hardware), neighbours(None))


def estimate_for(spec: RunSpec, hardware: Hardware) -> MemoryEstimate:
    """The memory that a run of `spec` takes. Raises Problem for a model that cannot be read."""
    # Here and below, since a supervisor whose run does not wait needs none of it.
    from engine.propose import predict
    from profiles.geometry import read_geometry

    return predict(spec, read_geometry(spec.model.path), hardware)


def room_on(hardware: Hardware, estimate: MemoryEstimate, around: Sequence[Neighbour]) -> Room:
    """The room for `estimate` on the first device of `hardware`, with the runs `around` the one that asks."""
    from engine.propose import budget_bytes

    gpu = hardware.gpus[0] if hardware.gpus else None
    device = f"GPU {gpu.index}" if gpu is not None else "RAM"
    free = gpu.free_bytes if gpu is not None else hardware.ram.available_bytes
    total = gpu.total_bytes if gpu is not None else hardware.ram.total_bytes
    ours = {each.worker.pid: each.run for each in around if each.worker is not None}
    holders = _gpu_holders(hardware, ours) if gpu is not None else _ram_holders(ours)
    promised = _promised_bytes([each for each in around if each.was_promised(device)], holders)
    named = [each for each in holders if each.bytes is None or each.bytes > total * _LEAST_HOLDING_SHARE]
    return Room(
        device,
        estimate.peak_bytes,
        free_bytes=max(0, free - promised),
        usable_bytes=max(0, budget_bytes(hardware, estimate) - promised),
        total_bytes=total,
        holders=tuple(named[:MOST_HOLDERS]),
        reserve_bytes=total - budget_bytes(_with_all_free(hardware), estimate),
    )


def _with_all_free(hardware: Hardware) -> Hardware:
    """The machine with nobody on it."""
    ram = replace(hardware.ram, available_bytes=hardware.ram.total_bytes)
    return replace(hardware, ram=ram, gpus=tuple(replace(gpu, used_bytes=0) for gpu in hardware.gpus))


def device_name(plan: Mapping[str, Any], reading: Mapping[str, Any]) -> str | None:
    """What Room calls the device that a `plan` event means, by the newest `device` event; None unless known."""
    if plan.get("device") == "cpu":
        return "RAM"
    gpus = reading.get("gpus") or []
    return f"GPU {gpus[0]['index']}" if gpus else None


def _gpu_holders(hardware: Hardware, ours: dict[int, RunDirectory]) -> list[Holder]:
    found = [
        Holder(_name(process.command, process.pid, ours), process.user, process.pid, process.bytes)
        for process in hardware.gpus[0].processes
    ]
    return sorted(found, key=lambda holder: -(holder.bytes or 0))


def _ram_holders(ours: dict[int, RunDirectory]) -> list[Holder]:
    """The programs that hold most RAM of their own (memory shared with others is not counted)."""
    import psutil

    found = []
    for process in psutil.process_iter(["name", "username", "memory_info"]):
        memory = process.info["memory_info"]
        if memory is None:
            continue  # a process of another person on a machine that hides them
        name = _name(process.info["name"] or "?", process.pid, ours)
        held = max(0, memory.rss - getattr(memory, "shared", 0))
        found.append(Holder(name, printable(process.info["username"] or "?", 16), process.pid, held))
    return sorted(found, key=lambda holder: -(holder.bytes or 0))


def _name(command: str, pid: int, ours: dict[int, RunDirectory]) -> str:
    return f"run {ours[pid].spec_name}" if pid in ours else printable(command, 24)


def _promised_bytes(started: Sequence[Neighbour], holders: Sequence[Holder]) -> int:
    """What runs that were started are still going to take, by what was predicted for them."""
    held = {holder.pid: holder.bytes for holder in holders}
    promised = 0
    for each in started:
        assert each.claim is not None
        needed = each.claim.needed_bytes
        taken = held.get(each.worker.pid, 0) if each.worker is not None else 0
        # Where the driver does not say what a process holds, one that is on the device counts as having taken it all.
        promised += max(0, needed - (needed if taken is None else taken))
    return promised
