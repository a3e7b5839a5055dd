"""A plan in words and numbers, the same on the Plan screen and in `finetui fit`. No widgets, nothing drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiles.problem import printable
from tui.format import (
    UNKNOWN,
    bytes_of_text,
    bytes_text,
    compact_text,
    count_text,
    counted,
    difference_text,
    duration_text,
    share_text,
)
from tui.memory_shares import ZOOM

if TYPE_CHECKING:
    from profiles.geometry import Geometry
    from profiles.hardware import Hardware
    from profiles.memory import MemoryEstimate
    from profiles.planner import Plan, Profile
    from profiles.settings import Settings

METHODS = ("full", "partial", "lora", "qlora")
FITS, NO_FIT = "✓", "✗"
MOST_HOLDERS = 3
"""Programs named that hold the rest of the memory."""
WORTH_A_PHASE = 0.01
"""Share by which a replayed peak differs from the formula's before the place in the step is named."""


@dataclass(frozen=True, slots=True)
class BarScale:
    """What a plan's memory bars are drawn against, in bytes, so that they can be compared by eye."""

    total_bytes: int
    others_bytes: int
    """Others' use, drawn at the end of each bar."""
    cut: bool
    """More memory is there than the bars show."""


def bar_scale(plan: Plan, profiles: Sequence[Profile]) -> BarScale:
    """The device's whole memory; only a part of it where every profile would be a sliver of that."""
    total = device_bytes(plan.hardware)
    largest = max((profile.peak_bytes for profile in profiles if profile.fits), default=total)
    if total > ZOOM * largest:
        return BarScale(ZOOM * largest, 0, True)
    return BarScale(total, max(0, total - plan.free_bytes), False)


def device_bytes(hardware: Hardware) -> int:
    """All memory of the device that would train."""
    return hardware.gpus[0].total_bytes if hardware.gpus else hardware.ram.total_bytes


def device_name(hardware: Hardware) -> str:
    """The device that would train: its first GPU, else the CPU."""
    name = (hardware.gpus[0] if hardware.gpus else hardware.cpu).name
    return printable(name.removeprefix("NVIDIA ").removeprefix("GeForce "), 40)


def free_words(plan: Plan) -> str:
    """How much of the device's memory is free now."""
    hardware = plan.hardware
    free = bytes_of_text(plan.free_bytes, device_bytes(hardware))
    return f"{free} free on {device_name(hardware)}" if hardware.gpus else f"{free} RAM free, no GPU"


def budget_words(plan: Plan) -> str:
    """How much of the free memory is planned with."""
    return f"{bytes_text(plan.budget_bytes)} to plan with"


def reserve_words(plan: Plan) -> str:
    """What of the free memory is not planned with, and why."""
    kept = bytes_text(max(0, plan.free_bytes - plan.budget_bytes))
    error = share_text(round(plan.profiles[0].estimate.error_share, 2))
    return f"{kept} kept back for others and {error} of error"


def holder_words(plan: Plan) -> list[str]:
    """Who holds the rest of the memory, the largest first; nothing where nobody is known to."""
    processes = plan.hardware.gpus[0].processes if plan.hardware.gpus else ()
    holders = sorted(processes, key=lambda each: each.bytes or 0, reverse=True)
    named = [f"{printable(each.user, 16)}: {printable(each.command, 24)} {bytes_text(each.bytes)}" for each in holders]
    more = [f"and {len(named) - MOST_HOLDERS} more"] if len(named) > MOST_HOLDERS else []
    return named[:MOST_HOLDERS] + more


def model_words(geometry: Geometry) -> str:
    """How large a model is: "8.2 B parameters", with what is active of a mixture of experts."""
    words = f"{compact_text(geometry.parameters)} parameters"
    active = geometry.active_parameters
    return words if active >= geometry.parameters else f"{words}, {compact_text(active)} active"


def job_words(plan: Plan) -> str:
    """What the data asks for: "4,812 rows, 1.9 M tokens, 3 epochs"."""
    job = plan.job
    if not job.rows:
        return "no data yet"
    words = f"{counted(job.rows, 'row')}, {compact_text(job.tokens)} tokens"
    epochs = plan.profiles[0].values.get("train.epochs") if plan.profiles else None
    return words if epochs is None else f"{words}, {epochs:g} {'epoch' if epochs == 1 else 'epochs'}"


def method_words(settings: Settings, short: bool = False) -> str:
    """The method with what sizes it: "lora r64", "partial 4 layers" (in `short` "partial 4")."""
    if settings.method == "full":
        return "full"
    if settings.method == "partial":
        layers = settings.trained_layers
        return f"partial {layers}" if short else f"partial {counted(layers, 'layer')}"
    return f"{settings.method} r{settings.rank}"


def settings_words(settings: Settings) -> list[str]:
    """The rest of a configuration."""
    return [
        f"{count_text(settings.sequence_length)} tokens",
        f"{settings.micro_batch} × {settings.gradient_accumulation} rows",
        checkpointing_words(settings),
        settings.optimizer,
        "nf4" if settings.method == "qlora" else settings.weight_dtype,
        settings.attention,
    ]


def checkpointing_words(settings: Settings) -> str:
    """What of the activations is computed again in the backward."""
    every = settings.gradient_checkpointing
    where = {0: "no recompute", 1: "recompute all", 2: "recompute every 2nd", 3: "recompute every 3rd"}
    words = where.get(every, f"recompute every {every}th")
    return f"{words}, offloaded" if every and settings.offload_checkpoints else words


def state_words(profile: Profile) -> str:
    """ "fits" or "does not fit", the words that stand beside the glyph."""
    return "fits" if profile.fits else "does not fit"


def room_words(profile: Profile) -> str:
    """How much of the budget is left, or how much more it takes."""
    if profile.fits:
        return f"fits with {bytes_text(profile.headroom_bytes)} to spare"
    if profile.headroom_bytes >= 0:
        return f"does not fit: {bytes_text(profile.peak_bytes)}, and more RAM than is free"
    return f"does not fit: {bytes_text(profile.peak_bytes)}, {bytes_text(-profile.headroom_bytes)} too much"


def trained_words(profile: Profile, geometry: Geometry) -> str:
    """How many parameters learn, and what share of all they are."""
    trained = profile.trainable_parameters
    share = trained / max(1, geometry.parameters)
    shown = share_text(round(share, 3) if share >= 0.01 else share)
    return f"trains {compact_text(trained)} parameters ({shown} of the base)"


def rate_words(profile: Profile) -> str:
    """Tokens a second, as a table has it."""
    speed = profile.speed.tokens_per_second
    return count_text(speed) if speed >= 9.95 else f"{speed:.1f}"


def time_words(profile: Profile) -> str:
    """Time for the whole job; unknown without data."""
    return UNKNOWN if profile.seconds is None else duration_text(profile.seconds)


def replay_words(allocated_bytes: int, phases: Mapping[str, int], estimate: MemoryEstimate) -> str:
    """A replayed optimizer step held against the formula's, and where the peak is when it is in no such step.

    The phase of the replay's peak is named only where the two peaks differ: the formula lists of each phase the moments
    that can be the highest, so that its lower phases say little.
    """
    from profiles.memory import TRAINING_PHASES

    predicted = max((estimate.phases[name] for name in TRAINING_PHASES if name in estimate.phases), default=0)
    text = f"{bytes_text(allocated_bytes)} of tensors in a step"
    if phases and abs(allocated_bytes - predicted) > WORTH_A_PHASE * predicted:
        text += f", in its {max(phases, key=phases.__getitem__)}"
    text += f"; the formula has {bytes_text(predicted)} ({difference_text(allocated_bytes, predicted)})"
    if estimate.phase in TRAINING_PHASES:
        return text
    highest = estimate.phases.get(estimate.phase, estimate.allocated_bytes)
    return f"{text}; the peak of {bytes_text(highest)} is in {estimate.phase}"
