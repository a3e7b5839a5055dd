"""A plan that is made up: what the plan's tests give the screens instead of the planner and its machine."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fake_seal import WHOLE

from engine.seal.ability import Ability
from profiles.geometry import Geometry
from profiles.hardware import Cpu, Disk, Gpu, GpuProcess, Hardware, Ram
from profiles.memory import MemoryEstimate
from profiles.planner import Job, Plan, Profile
from profiles.problem import Problem
from profiles.settings import Settings
from profiles.shapes.model_config import ModelConfig
from profiles.shapes.safetensors_header import Tensor
from profiles.speed import SpeedEstimate
from tui.plan_views import ViewRow
from tui.widgets.new_run.places import Place
from tui.widgets.plan.board import MOVABLE
from tui.widgets.plan.sources import PlanSources

MIB, GIB = 1024**2, 1024**3
BUDGET = int(15.4 * GIB)
FOLDER = Path("/home/ada/models/Qwen3-8B")
CATALOGUE_NAME = Path("Qwen/Qwen3-8B")
PLACES = (Place(FOLDER, "Qwen3-8B", "~/models"), Place(CATALOGUE_NAME, str(CATALOGUE_NAME), "catalogue"))
RECOMPUTED = {0: 1.0, 1: 0.08, 2: 0.55, 3: 0.7}


def workstation(vram_bytes: int = 24 * GIB, others_bytes: int = int(6.9 * GIB), name: str = "RTX 4090") -> Hardware:
    """A machine with one card that somebody else uses too."""
    used = (GpuProcess(977, "bob", "python", others_bytes),) if others_bytes else ()
    card = Gpu(0, "GPU-0", name, vram_bytes, others_bytes, (8, 9), True, 61, 212, 0.4, used)
    disk = Disk(Path("/home/ada"), 812 * GIB, 1800 * GIB)
    return Hardware("ada-01", Cpu("AMD Ryzen 9 7950X", 16, 32, True), Ram(128 * GIB, 97 * GIB), (card,), disk, ())


def model(path: Path, source: str = "files") -> Geometry:
    config = ModelConfig(path, "qwen3", "Qwen3ForCausalLM", 36, 4096, 12288, 32, 8, 128, 151936, False, 40960, 0)
    return Geometry(path, config, False, {"model.embed_tokens.weight": Tensor((8_190_000, 1000), "BF16")}, source)


def priced(name: str, settings: Settings, budget_bytes: int = BUDGET, **changes: Any) -> Profile:
    """A profile whose memory follows its settings in the simplest way."""
    adapts = settings.method in ("lora", "qlora")
    share = settings.trained_layers / 36 if settings.method == "partial" else 1
    trained = settings.rank * 2_600_000 if adapts else 8_190_000_000 * share
    weights = {"qlora": 5.6 * GIB, "full": 30.5 * GIB}.get(settings.method, 15.3 * GIB)
    states = trained * (2 if "8bit" in settings.optimizer else 0.1 if settings.optimizer == "adafactor" else 8)
    parts = {
        "weights": weights,
        "adapters": trained * 4 if adapts else 0,
        "gradients": trained * 4,
        "optimizer": states,
        "activations": settings.tokens * 36 * 8000 * RECOMPUTED[settings.gradient_checkpointing],
        "loss": 0.6 * GIB,
        "context": 0.5 * GIB,
    }
    components = {part: int(size) for part, size in parts.items()}
    held = components["weights"] + components["adapters"] + components["optimizer"]
    tensors = sum(components.values()) - components["context"]
    phases = {"loading": components["weights"], "loss": tensors - components["gradients"], "first backward": tensors}
    phases["optimizer"] = held + components["gradients"]
    estimate = MemoryEstimate(components, "first backward", 0.05, (), phases)
    speed = 3400 * (0.75 if settings.gradient_checkpointing == 1 else 1) * (0.8 if settings.method == "qlora" else 1)
    short = estimate.peak_bytes - budget_bytes
    missing = f"{settings.method} needs {short / GIB:.1f} GiB more than is free" if short > 0 else ""
    values = {
        "method.kind": settings.method,
        "method.rank": settings.rank,
        "data.sequence_length": settings.sequence_length,
        "train.micro_batch": settings.micro_batch,
        "train.gradient_accumulation": settings.gradient_accumulation,
        "train.gradient_checkpointing": settings.gradient_checkpointing,
        "optimizer.kind": settings.optimizer,
        "train.epochs": 3.0,
    }
    reasons = {
        "method.rank": "enough for about 1,900,000 tokens of data",
        "data.sequence_length": "holds the longest row, about 1,900 tokens",
        "train.micro_batch": f"{settings.tokens:,} tokens at once",
        "train.gradient_checkpointing": "the least recompute that fits",
    }
    profile = Profile(
        name,
        settings,
        values,
        reasons,
        estimate,
        budget_bytes,
        SpeedEstimate(speed, settings.tokens / speed, "compute", "large products", 0.25),
        5_700_000 / speed,
        int(trained),
        ("Checkpointing every 2nd layer is the least recompute that fits.", "Micro-batch 2 fills the card.")
        if not missing
        else (f"Needs {estimate.peak_bytes / GIB:.1f} GiB; an 8-bit optimizer and offload would save 22.",),
        missing,
        (name,),
    )
    return dataclasses.replace(profile, **changes)


BASE = Settings("lora", "cuda", "bf16", "varlen", 2048, micro_batch=2, gradient_accumulation=4, rank=64)


def made_plan(geometry: Geometry, hardware: Hardware, job: Job) -> Plan:
    """Six profiles, of which two do not fit a card with others on it."""
    free = hardware.gpus[0].free_bytes
    budget = int(free * 0.9)
    ways = {
        "best quality": dataclasses.replace(BASE, rank=4, gradient_checkpointing=2, micro_batch=1),
        "fastest": dataclasses.replace(BASE, method="qlora", rank=32),
        "longest context": dataclasses.replace(
            BASE, method="qlora", rank=16, sequence_length=32768, micro_batch=1, gradient_checkpointing=1
        ),
        "leanest": dataclasses.replace(BASE, method="qlora", rank=8, micro_batch=1, gradient_checkpointing=1),
        "partial": dataclasses.replace(BASE, method="partial", trained_layers=9, gradient_checkpointing=1),
        "full": dataclasses.replace(BASE, method="full", optimizer="adamw_8bit", gradient_checkpointing=1),
    }
    profiles = [priced(name, settings, budget) for name, settings in ways.items()]
    if not job.rows:
        profiles = [dataclasses.replace(profile, seconds=None) for profile in profiles]
    ranked = sorted(profiles, key=lambda profile: not profile.fits)
    note = "1.7 GiB of the free memory are kept back for other programs."
    return Plan(
        geometry=geometry,
        hardware=hardware,
        job=job,
        profiles=tuple(ranked),
        budget_bytes=budget,
        free_bytes=free,
        points_priced=4120,
        grid_points=41200,
        seconds=0.04,
        notes=(note,),
    )


@dataclass(frozen=True)
class FakeReplayed:
    allocated_bytes: int
    phases: Mapping[str, int]
    seconds: float = 3.0


@dataclass
class FakePlanner:
    """Stands behind the Plan screen and the plan step, and remembers what it was asked."""

    places: list[Place] = field(default_factory=lambda: list(PLACES))
    others_bytes: int = int(6.9 * GIB)
    job: Job = field(default_factory=Job)
    problem: Problem | None = None
    """What finding a model says."""
    found: int = 0
    """How often a model was looked for."""
    priced: list[dict[str, Any]] = field(default_factory=list)
    replayed: list[Settings] = field(default_factory=list)
    ability: Ability = WHOLE
    """What the machine can hold of a seal."""
    measures: bool = False
    """Whether this machine's speed is not known yet."""
    measured: list[Hardware] = field(default_factory=list)
    cancelled: int = 0
    hold: threading.Event | None = None
    """A replay waits for this, or for being cancelled."""

    def sources(self) -> PlanSources:
        return PlanSources(
            hardware=self.hardware,
            measure_speed=self.measure_speed,
            ability=lambda: self.ability,
            places=lambda: self.places,
            find=self.find,
            plan=self.plan,
            price=self.price,
            replay=self.replay,
            models=self.models,
            cards=self.cards,
        )

    def measure_speed(self, hardware: Hardware) -> bool:
        self.measured.append(hardware)
        return self.measures

    def hardware(self) -> Hardware:
        return workstation(others_bytes=self.others_bytes)

    def find(self, path: Path) -> Geometry:
        self.found += 1
        if self.problem is not None:
            raise self.problem
        return model(path, "files" if path.is_absolute() else "catalogue")

    def plan(self, path: Path, hardware: Hardware) -> Plan:
        found = made_plan(self.find(path), hardware, self.job)
        if not (self.measures and self.measured):
            return found
        faster = [
            dataclasses.replace(each, speed=dataclasses.replace(each.speed, tokens_per_second=9_999.0))
            for each in found.profiles
        ]
        return dataclasses.replace(found, profiles=tuple(faster))

    def price(self, plan: Plan, values: Mapping[str, Any]) -> Profile:
        self.priced.append(dict(values))
        if values["data.sequence_length"] > 40960:
            what = f"is {values['data.sequence_length']:,}, but the model's context is 40,960 tokens"
            raise Problem("data.sequence_length", what, "Set it to 40960 or less.")
        asked = {name: values[asked] for asked, name in MOVABLE.items() if asked in values}
        found = priced("yours", dataclasses.replace(BASE, **asked), plan.budget_bytes)
        return found if plan.job.rows else dataclasses.replace(found, seconds=None)

    def replay(self, geometry: Geometry, settings: Settings, cancelled: threading.Event) -> FakeReplayed | None:
        self.replayed.append(settings)
        while self.hold is not None and not self.hold.wait(0.02):
            if cancelled.is_set():
                self.cancelled += 1
                return None
        predicted = priced("any", settings).estimate.allocated_bytes
        return FakeReplayed(int(predicted * 1.003), {"first backward": predicted})

    def models(self, hardware: Hardware) -> Iterator[ViewRow]:
        sizes = {"HuggingFaceTB/SmolLM2-135M": 0.02, "Qwen/Qwen3-1.7B": 0.2, "Qwen/Qwen3-8B": 1.0, "Qwen/Qwen3-32B": 4}
        for name, share in sizes.items():
            yield ViewRow(name, (f"{8.2 * share:.1f} B", "Apache-2.0"), ladder(share, hardware))

    def cards(self, geometry: Geometry, hardware: Hardware) -> Iterator[ViewRow]:
        yield ViewRow("this machine", ("24.0 GiB",), ladder(1, hardware), hardware)
        for name, size in {"RTX 3060": 12, "RTX 4090": 24, "A100 80GB": 80, "H200": 141}.items():
            card = workstation(size * GIB, 0, name)
            yield ViewRow(name, (f"{size}.0 GiB" if size < 100 else f"{size} GiB",), ladder(1, card), card)


def ladder(share: float, hardware: Hardware) -> dict[str, Profile]:
    """A profile for each method, of a model that is `share` times as large as usual."""
    ladder = {}
    for method in ("full", "partial", "lora", "qlora"):
        settings = dataclasses.replace(
            BASE, method=method, rank=16, trained_layers=9, micro_batch=1, gradient_checkpointing=1
        )
        profile = priced(method, settings)
        scaled = {part: int(size * share) for part, size in profile.estimate.components.items()}
        estimate = dataclasses.replace(profile.estimate, components=scaled)
        budget = int(hardware.gpus[0].free_bytes * 0.9)
        missing = "more than is free" if estimate.peak_bytes > budget else ""
        ladder[method] = dataclasses.replace(profile, estimate=estimate, budget_bytes=budget, missing=missing)
    return ladder
