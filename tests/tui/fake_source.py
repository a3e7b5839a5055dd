"""A follower's source without an engine: run folders are read, the machine and who is live are made up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from fake_seal import WHOLE

from engine.run.directory import RunDirectory
from engine.run.processes.orphans import Orphan
from engine.run.summary import RunSummary, ending_of
from engine.run.telemetry.events import RunState
from engine.run.telemetry.folding import Folding
from engine.seal.ability import Ability
from profiles.hardware import Cpu, Disk, Gpu, GpuProcess, Hardware, Ram
from tui.snapshots import Machine, MemoryUser, RunSnapshot
from tui.source import log_lines

GIB = 1024**3


def summary(name: str, state: str = "finished", **changes) -> RunSummary:
    """A RunSummary with usual values where `changes` has none."""
    values = {
        "name": f"20260105T080000Z-{name}",
        "path": Path(f"/home/ada/.local/share/finetui/runs/20260105T080000Z-{name}"),
        "spec_name": name,
        "model": "Qwen3-8B",
        "data": "intake.jsonl",
        "method": "lora",
        "state": state,
        "why": "",
        "step": 1200,
        "planned_steps": 1200,
        "loss": 0.388,
        "held_out_loss": 0.421,
        "seconds_left": None,
        "started_at": 1_767_600_000.0,
        "last_event_at": 1_767_603_000.0,
        "seal": "sealed",
    }
    fields = {field.name for field in dataclasses.fields(RunSummary)}
    return RunSummary(**{name: value for name, value in {**values, **changes}.items() if name in fields})


RUNS = (
    summary(
        "intake-notes-3",
        "running",
        method="qlora",
        step=412,
        loss=0.412,
        held_out_loss=0.437,
        seconds_left=1080,
    ),
    summary("intake-notes-2"),
    summary(
        "tickets-a",
        "failed",
        method="full",
        step=90,
        planned_steps=4000,
        loss=None,
        held_out_loss=None,
        why="the loss was not a number at step 90",
    ),
    summary("tickets-quick", "stopped", step=300, loss=0.912, held_out_loss=0.95, why="a person asked for it"),
    summary("first-try", method="full", model="tiny-llama", data="letters.jsonl", loss=1.204, held_out_loss=1.377),
)


def hardware(gpus: int = 1) -> Hardware:
    """A workstation with as many GPUs as asked for."""
    processes = (GpuProcess(4242, "ada", "python", int(7.9 * GIB)), GpuProcess(977, "bob", "python", int(6.1 * GIB)))
    cards = [
        Gpu(
            index,
            f"GPU-{index}",
            "RTX 4090",
            24 * GIB,
            14 * GIB,
            (8, 9),
            True,
            61,
            212,
            0.97,
            processes if not index else (),
        )
        for index in range(gpus)
    ]
    cpu = Cpu("AMD Ryzen 9 7950X", 16, 32, True)
    disk = Disk(Path("/home/ada"), 812 * GIB, 1800 * GIB)
    return Hardware("ada-01", cpu, Ram(128 * GIB, 97 * GIB), tuple(cards), disk, ())


def machine(gpus: int = 1, seal: Ability | None = WHOLE) -> Machine:
    users = (
        MemoryUser("intake-notes-3", "ada", int(9.2 * GIB), ours=True),
        MemoryUser("firefox", "ada", int(4.4 * GIB)),
        MemoryUser("python", "bob", int(2.1 * GIB)),
    )
    return Machine(hardware(gpus), users, frozenset({4242}), seal)


class FakeFeed:
    """Folds a run folder's journal once; `live` decides what the lock would."""

    def __init__(self, run: RunDirectory, live: bool):
        folding = Folding()
        for line in run.events_path.read_text().splitlines():
            folding.add(json.loads(line))
        self.state: RunState = folding.state()
        ended = "ended" if self.state.outcome else "died"
        liveness = "live" if live else ended
        ending = ending_of(run, liveness, self.state)
        self._rest = {"liveness": liveness, "spec": run.spec(), "log": log_lines(run), "ending": ending}
        self._run = run

    def read(self) -> RunSnapshot:
        return RunSnapshot(run=self._run, state=self.state, **self._rest)


class FakeSource:
    """Gives out `runs` and `machine`; `follow` reads the run's folder."""

    def __init__(
        self,
        runs: tuple[RunSummary, ...] = RUNS,
        gpus: int = 1,
        live: tuple[str, ...] = (),
        orphans: tuple[Orphan, ...] = (),
    ):
        self._orphans = orphans
        self._runs, self._machine, self._live = runs, machine(gpus), live
        self.reads = 0

    def runs(self) -> tuple[RunSummary, ...]:
        self.reads += 1
        return self._runs

    def machine(self) -> Machine:
        return self._machine

    def orphans(self) -> tuple[Orphan, ...]:
        return self._orphans

    def follow(self, run: RunDirectory) -> FakeFeed:
        return FakeFeed(run, run.name in self._live)
