"""Sentences about profiles: why they are where they are, and what a method that does not fit would need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from profiles.geometry import Geometry
from profiles.planning.quality import trade_off
from profiles.planning.search import Point, Priced, Pricing
from profiles.settings import Settings

_GIB, _MIB = 1 << 30, 1 << 20
# A step that saves less than this is not worth a person's attention.
_WORTH_SAYING = 0.02
_METHOD_WORDS = {"full": "full tuning", "partial": "partial tuning", "lora": "LoRA", "qlora": "QLoRA"}
_OPTIMIZER_WORDS = {
    "adamw_8bit": "an 8-bit optimizer",
    "paged_adamw": "a paged optimizer",
    "paged_adamw_8bit": "a paged 8-bit optimizer",
    "adafactor": "Adafactor",
}


def size_text(size_bytes: float) -> str:
    """ "61.4 GiB", "1,235 GiB", or "512 MiB" below one GiB."""
    size, unit = (size_bytes / _GIB, "GiB") if abs(size_bytes) >= _GIB else (size_bytes / _MIB, "MiB")
    return f"{size:,.0f} {unit}" if unit == "MiB" or abs(size) >= 99.95 else f"{size:.1f} {unit}"


def titles_text(titles: Sequence[str]) -> str:
    """What a profile is the best at, when that is more than its name says: "Also the fastest and the leanest."."""
    further = [title if title.startswith("best") else f"the {title}" for title in titles[1:]]
    return f"Also {' and '.join(further)}." if further else ""


def recompute_text(settings: Settings) -> str:
    """How activations are kept: "every 2nd layer recomputes"."""
    every = settings.gradient_checkpointing
    if not every:
        return "nothing is recomputed"
    which = "every layer recomputes" if every == 1 else f"every {_ordinal(every)} layer recomputes"
    return f"{which} from inputs in RAM" if settings.offload_checkpoints else which


def why_profile(
    geometry: Geometry, priced: Priced, titles: Sequence[str], tokens: int, best_rank: int
) -> tuple[str, ...]:
    """One to four sentences on a profile that fits, the most telling first."""
    settings = priced.point.settings
    spare = priced.point.budget_bytes - priced.point.peak_bytes
    detail = (
        f"{capitalised(recompute_text(settings))}; {settings.micro_batch} x {settings.sequence_length:,} tokens "
        f"at once; {size_text(spare)} to spare."
    )
    words = (
        titles_text(titles),
        trade_off(geometry, settings, tokens, best_rank),
        unquantised_text(geometry, settings),
        detail,
    )
    return tuple(each for each in words if each)


def unquantised_text(geometry: Geometry, settings: Settings) -> str:
    """What of a mixture of experts qlora does not make smaller; nothing for other models and methods."""
    if settings.method != "qlora" or not geometry.expert_parameters:
        return ""
    share = round(100 * geometry.expert_parameters / geometry.parameters)
    return f"The experts, {share} % of the weights, stay in 16 bits: bitsandbytes quantises no stacked experts."


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def missing_text(steps: Sequence[Point]) -> str:
    """What a method needs as it is, what saving steps bring it to, and what is still missing.

    `steps` are `saving_steps`: the plainest point, and the points that one change after another leads to.
    """
    plain, *further = steps
    words, reached = [], plain
    for point in further:
        if point.peak_bytes < reached.peak_bytes * (1 - _WORTH_SAYING):
            words.append(_step_text(reached.settings, point.settings))
            reached = point
    text = f"{_METHOD_WORDS[plain.settings.method]} needs {size_text(plain.peak_bytes)}"
    if words:
        several = len(words) > 1
        listed = f"{', '.join(words[:-1])} and {words[-1]}" if several else words[0]
        text += f"; {listed} bring{'' if several else 's'} it to {size_text(steps[-1].peak_bytes)}"
    short = steps[-1].peak_bytes - steps[-1].budget_bytes
    return f"{text}, {size_text(short)} more than may be used" if short > 0 else f"{text}, but RAM is short"


def saving_steps(pricing: Pricing, leanest: Point, plain: Point) -> list[Point]:
    """From `plain` to `leanest` one change at a time, each priced: optimizer, recompute, chunk, offload, the rest."""
    goal = leanest.settings
    points, settings = [plain], plain.settings
    for changes in (
        {"optimizer": goal.optimizer},
        {"gradient_checkpointing": goal.gradient_checkpointing},
        {"loss_chunk": goal.loss_chunk},
        {"offload_checkpoints": goal.offload_checkpoints},
    ):
        further = replace(settings, **changes)
        if further != settings:
            settings = further
            points.append(pricing.price(plain.variant, settings))
    if settings != goal:
        points.append(leanest)
    return points


def _step_text(before: Settings, after: Settings) -> str:
    if after.optimizer != before.optimizer:
        return _OPTIMIZER_WORDS.get(after.optimizer, after.optimizer)
    if after.gradient_checkpointing != before.gradient_checkpointing:
        return "checkpointing"
    if after.loss_chunk != before.loss_chunk:
        return "smaller loss chunks"
    if after.offload_checkpoints != before.offload_checkpoints:
        return "offloading"
    if after.rank != before.rank or after.targets != before.targets:
        return f"adapters of rank {after.rank}" + ("" if after.targets == "all-linear" else " on attention alone")
    if after.trained_layers != before.trained_layers:
        return f"only {after.trained_layers} trained layers"
    return "double quantisation"


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")
