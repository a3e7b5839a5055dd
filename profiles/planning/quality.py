"""What ranks ways of training by the quality to expect of them, each rule with the paper it rests on.

The number only orders: 1 is what tuning every weight can reach, and differences are steps of about the size that the
papers report. No paper covers all methods on one task, so close numbers mean "as good as each other".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from profiles.geometry import Geometry
from profiles.settings import Method, Optimizer, Settings

# A weight that learns keeps about 2 bits (Allen-Zhu & Li, "Physics of Language Models 3.3", arXiv 2404.05405), and a
# token of text holds about one ("LoRA Without Regret", Thinking Machines, 2025, which compares the two: LoRA equals
# full tuning until its capacity is used up, and then falls behind).
_BITS_PER_PARAMETER = 2.0
_BITS_PER_TOKEN = 1.0
# Per halving of what the data would need.
_SHORT_CAPACITY_LOSS = 0.02
# Full tuning forgets more of what the base knew ("LoRA Learns Less and Forgets Less", Biderman et al., arXiv
# 2405.09673), so it wins only where the data are clearly more than an adapter holds.
_FORGETTING_LOSS = 0.03
# NF4 with double quantisation came to 16-bit LoRA's scores (QLoRA, arXiv 2305.14314, table 4); equal at best.
_FOUR_BIT_LOSS = 0.01
# Adapters on attention alone stay behind those on every layer, at equal size too ("LoRA Without Regret").
_ATTENTION_ONLY_LOSS = 0.05
# A fourth of the layers reaches 90 %, half of them more ("What Would Elsa Do?", Lee et al., arXiv 1911.03090).
_HALF_OF_THE_LAYERS_LOSS = 0.05
# 8-bit states match 32-bit ones (Dettmers et al., arXiv 2110.02861); paging only moves them. Without a first moment
# Adafactor is less steady when tuning (Shazeer & Stern, arXiv 1804.04235, section 5).
_OPTIMIZER_LOSS: dict[Optimizer, float] = {
    "adamw": 0.0,
    "paged_adamw": 0.0005,
    "adamw_8bit": 0.002,
    "paged_adamw_8bit": 0.0025,
    "adafactor": 0.01,
}

SOUND = 0.85
"""Below this a profile is offered as the leanest only: too little learns to call it fast or long."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What of a profile decides its quality. `rank` matters to lora and qlora, `trained_layers` to partial."""

    method: Method
    optimizer: Optimizer
    rank: int
    targets: str | tuple[str, ...]
    trained_layers: int
    double_quantisation: bool
    quality: float = 0.0

    def applied(self) -> dict[str, object]:
        """As fields of Settings."""
        return {
            "method": self.method,
            "optimizer": self.optimizer,
            "rank": self.rank,
            "targets": self.targets,
            "trained_layers": self.trained_layers,
            "double_quantisation": self.double_quantisation,
        }


def adapter_parameters(geometry: Geometry, rank: int, targets: str | tuple[str, ...] = "all-linear") -> int:
    """Elements of LoRA matrices of `rank` on the named linear layers."""
    kept: dict[object, int] = vars(geometry).setdefault("_adapter_widths", {})
    if targets not in kept:
        kept[targets] = sum(
            inputs + outputs
            for name, (inputs, outputs) in geometry.linear_shapes.items()
            if targets == "all-linear" or any(name == each or name.endswith(f".{each}") for each in targets)
        )
    return rank * kept[targets]


def shortage(geometry: Geometry, tokens: int, rank: int) -> float:
    """How many times more the data hold than adapters of `rank` on every layer can; at most 1 when all fits."""
    capacity = _BITS_PER_PARAMETER * max(1, adapter_parameters(geometry, rank))
    return tokens * _BITS_PER_TOKEN / capacity


def sound_rank(geometry: Geometry, tokens: int, proposed: int, ranks: tuple[int, ...]) -> int:
    """The least rank from `proposed` on that holds the data; the largest sensible one when none does.

    Ranks beyond a quarter of the model's width are not tried: such adapters come near the size of the matrices.
    """
    widest = max(proposed, geometry.hidden_size // 4)
    larger = [rank for rank in ranks if proposed <= rank <= widest] or [proposed]
    return next((rank for rank in larger if shortage(geometry, tokens, rank) <= 1), larger[-1])


def quality(geometry: Geometry, variant: Variant, tokens: int, best_rank: int) -> float:
    """The ordering number of `variant` for `tokens` of data, where `best_rank` is what `sound_rank` says."""
    loss = _OPTIMIZER_LOSS[variant.optimizer]
    if variant.method == "full":
        return 1 - loss - _FORGETTING_LOSS
    if variant.method == "partial":
        share = min(1.0, variant.trained_layers / geometry.layers)
        return 1 - loss - _FORGETTING_LOSS - _HALF_OF_THE_LAYERS_LOSS * math.log2(1 / share)
    loss += _SHORT_CAPACITY_LOSS * math.log2(max(1.0, best_rank / variant.rank))
    loss += _SHORT_CAPACITY_LOSS * math.log2(max(1.0, shortage(geometry, tokens, max(best_rank, variant.rank))))
    if variant.targets != "all-linear":
        loss += _ATTENTION_ONLY_LOSS
    if variant.method == "qlora":
        loss += _FOUR_BIT_LOSS
    return 1 - loss


def trade_off(geometry: Geometry, settings: Settings, tokens: int, best_rank: int) -> str:
    """What choosing this method means, in a sentence with its source."""
    if settings.method == "full":
        if tokens and shortage(geometry, tokens, best_rank) > 1:
            return "Every weight learns: the data hold more than an adapter keeps. Saves a whole model."
        return "Every weight learns; an adapter would hold these data and forget less (Biderman 2024)."
    if settings.method == "partial":
        count = min(settings.trained_layers, geometry.layers)
        which = f"The last {count} of {geometry.layers} layers learn" if count > 1 else "The last layer learns"
        return f"{which}: a fourth of all reaches 90 % of full tuning (Lee 2019)."
    under = "4-bit weights" if settings.method == "qlora" else "16-bit weights"
    if settings.compute_dtype == "fp32" and settings.method == "lora":
        under = "32-bit weights"
    if settings.targets != "all-linear":
        return f"Adapters on some layers only, over {under}: lean, but behind adapters on all (Schulman 2025)."
    if settings.rank < best_rank:
        wanted = f"the {best_rank} that the data want" if tokens else f"the usual {best_rank}"
        return f"Adapters of rank {settings.rank} over {under}: less than {wanted}."
    if settings.method == "qlora":
        return "4-bit weights under the adapter: on par with 16-bit LoRA (QLoRA paper), slower a token."
    return f"{under} stay frozen: equals full tuning while the data fit the adapter (Schulman 2025)."
