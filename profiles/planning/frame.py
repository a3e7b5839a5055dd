"""What a plan rests on: values decided from the data and the model alone, and the choices left to the search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from profiles.geometry import Geometry
from profiles.hardware import Hardware
from profiles.planning import hyperparameters as usual
from profiles.planning.asked import require_possible
from profiles.planning.quality import Variant, quality, sound_rank
from profiles.planning.search import Space, divisors, recompute_modes
from profiles.planning.settings_of_spec import settings_from
from profiles.settings import SEQUENCES, Method, Objective, Optimizer

METHODS: tuple[Method, ...] = ("full", "partial", "lora", "qlora")

_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 8192}
"""Tokens in a micro-batch beyond which the device's matrix units are busy and only memory grows."""
_ATTENTION_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj")
_PARTIAL_SHARES = (2, 4, 8)
"""partial: a half, a fourth, an eighth of the layers."""
_ADAPTER_OPTIMIZERS: dict[str, tuple[Optimizer, ...]] = {
    "cpu": ("adamw",),
    # An adapter's states are too small for paging to bring anything.
    "cuda": ("adamw", "adamw_8bit"),
}
_WEIGHT_OPTIMIZERS: dict[str, tuple[Optimizer, ...]] = {
    # bitsandbytes' 8-bit states exist on a CPU too, but RAM is rarely what is missing there, and speed is.
    "cpu": ("adamw", "adafactor"),
    "cuda": ("adamw", "paged_adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """What there is to learn from, in tokens; all zero when no data are given.

    `tokens` are those of one epoch, `epochs` None to have them proposed. `usual_tokens` is what 99 of 100 rows hold,
    `answer_tokens` the longest answer known; `held_out` whether a file to measure on is given; `objective` what learns
    from such data.
    """

    rows: int = 0
    tokens: int = 0
    longest_tokens: int = 0
    epochs: float | None = None
    usual_tokens: int = 0
    answer_tokens: int = 0
    held_out: bool = False
    objective: Objective = "next_token"


@dataclass(frozen=True)
class Decisions:
    """Values and reasons by dotted field; what was asked for always wins."""

    asked: Mapping[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def decide(self, field: str, choice: usual.Choice) -> None:
        """Set `field` to the choice unless it was asked to be something else."""
        if field in self.asked:
            self.values[field], self.reasons[field] = self.asked[field], "as you set it"
        else:
            self.values[field], self.reasons[field] = choice

    def copy(self) -> Decisions:
        return Decisions(self.asked, dict(self.values), dict(self.reasons))


class Frame:
    """What one plan or price rests on; `wanted_rows` fixes the rows of a step.

    Raises Problem for an asked value that the model cannot have.
    """

    def __init__(
        self,
        geometry: Geometry,
        hardware: Hardware,
        job: Job,
        asked: Mapping[str, Any],
        wanted_rows: int | None = None,
    ):
        self.geometry, self.hardware, self.job, self.asked = geometry, hardware, job, asked
        self.wanted_rows = wanted_rows
        require_possible(asked, geometry)
        self.decisions = Decisions(asked)
        self._decide()

    def _decide(self) -> None:
        job, geometry, context = self.job, self.geometry, self.geometry.context_length
        decide = self.decisions.decide
        decide("data.sequence_length", usual.sequence_length(job.longest_tokens, job.usual_tokens, context))
        if job.rows and not job.held_out:
            decide("data.held_out_share", usual.held_out_share(job.rows))
        decide("data.packing", usual.Choice(True, "several rows in one, isolated from each other"))
        if job.objective != "next_token":
            decide("objective.kind", usual.Choice(job.objective, "what such data are learnt with"))
        epochs = usual.epochs(job.rows, self.objective)
        if job.epochs is not None:
            epochs = usual.Choice(job.epochs, "as the data were said to be passed over")
        decide("train.epochs", epochs)
        decide("evaluation.rows", usual.evaluation_rows(job.rows * self.values["train.epochs"]))
        proposed = usual.rank(job.tokens)
        best = sound_rank(geometry, job.tokens, proposed.value, usual.RANKS)
        if best > proposed.value:
            proposed = usual.Choice(best, f"about {job.tokens:,} tokens hold more than a smaller adapter keeps")
        decide("method.rank", proposed)
        decide("method.alpha", usual.alpha())
        decide("method.trained_layers", usual.trained_layers(geometry.layers))
        decide("train.loss_chunk", usual.loss_chunk(geometry.vocab_size))
        answers = usual.answers(geometry.parameters, self.device)
        if job.rows and not job.answer_tokens:
            answers = usual.Choice(0, "the data hold no answers to compare")
        decide("evaluation.answers", answers)
        decide("evaluation.max_new_tokens", usual.max_new_tokens(job.answer_tokens))

    @property
    def objective(self) -> Objective:
        return self.asked.get("objective.kind", self.job.objective)

    @property
    def device(self) -> str:
        return "cuda" if self.hardware.gpus else "cpu"

    @property
    def length(self) -> int:
        return self.values["data.sequence_length"]

    @property
    def best_rank(self) -> int:
        return self.values["method.rank"]

    @property
    def values(self) -> Mapping[str, Any]:
        return self.decisions.values

    def lengths(self) -> tuple[int, ...]:
        """Row lengths to try, ascending: the decided one and, unless it was asked for, each power of two to the
        model's context."""
        lengths, context = [self.length], self.geometry.context_length
        while "data.sequence_length" not in self.asked and context and lengths[-1] < context:
            lengths.append(min(context, 2 ** lengths[-1].bit_length()))
        return tuple(lengths)

    def row_length(self, length: int) -> int:
        """Tokens that a row has room for when sequences are cut to `length`: of a row that compares several sequences,
        what the longest of the data takes, where that is more (engine.train.step_plan)."""
        sequences = SEQUENCES.get(self.objective, 1)
        return max(length, sequences * min(length, self.job.longest_tokens or length))

    def row_tokens(self, length: int) -> float:
        """Tokens of data in one row of a micro-batch."""
        mean = self.job.tokens / self.job.rows if self.job.rows else 0.0
        return usual.row_tokens(self.row_length(length), mean, self.values["data.packing"])

    def rows_per_step(self, length: int) -> int:
        """Rows that one optimizer step learns from, whatever fits at once."""
        asked, key = self.asked, "train.gradient_accumulation"
        if "train.micro_batch" in asked and key in asked:
            return asked["train.micro_batch"] * asked[key]
        if self.wanted_rows is not None:
            return self.wanted_rows
        least = usual.least_tokens_per_step(self.objective, self.job.rows, self.job.tokens)
        return usual.rows_per_step(self.job.tokens * self.values["train.epochs"], self.row_tokens(length), least)

    def steps(self, length: int, rows_per_step: int) -> int:
        """Optimizer steps of the whole run; 0 when the data are not known."""
        if limit := self.asked.get("train.max_steps"):
            return limit
        rows = math.ceil(self.job.tokens / self.row_tokens(length))
        return math.ceil(self.values["train.epochs"] * math.ceil(rows / rows_per_step))

    def space(self, length: int) -> Space:
        """What the search may choose around every variant, for rows of `length` tokens."""
        asked = self.asked
        wanted = self.rows_per_step(length)
        at_once = max(1, min(wanted, _TOKENS_AT_ONCE[self.device] // self.row_length(length)))
        micro_batches = divisors(wanted, at_once)
        if "train.micro_batch" in asked:
            micro_batches = (asked["train.micro_batch"],)
        elif "train.gradient_accumulation" in asked:
            fixed = asked["train.gradient_accumulation"]
            # With this many micro-batches a step only fewer rows a step can save memory.
            top = max(1, min(at_once, round(wanted / fixed)))
            micro_batches = tuple(sorted({max(1, top >> halvings) for halvings in range(top.bit_length())}))
        if "train.gradient_accumulation" in asked:
            accumulations = tuple(asked["train.gradient_accumulation"] for _ in micro_batches)
        else:
            accumulations = tuple(max(1, round(wanted / size)) for size in micro_batches)
        modes = recompute_modes(self.device)
        if (every := asked.get("train.gradient_checkpointing")) is not None:
            modes = tuple(mode for mode in modes if mode[0] == every) or ((every, False),)
        if (offload := asked.get("train.offload_checkpoints")) is not None:
            # Offloading what is kept for recomputing needs something that recomputes.
            kept = [mode for mode in modes if mode[0] or not offload]
            modes = tuple(dict.fromkeys((every, offload) for every, _ in kept)) or modes[:1]
        chunk = self.values["train.loss_chunk"]
        lean = chunk if "train.loss_chunk" in asked else usual.LEAST_LOSS_CHUNK
        values = {"method.kind": "lora", "data.held_out": self.job.held_out, **asked, **self.values}
        values["data.sequence_length"] = length
        base = settings_from(values, self.geometry, self.hardware)
        return Space(base, micro_batches, accumulations, modes, tuple(dict.fromkeys((chunk, lean))))

    def variants(self) -> list[Variant]:
        """Every way of training that was not ruled out, the best first."""
        asked = self.asked
        methods = (asked["method.kind"],) if "method.kind" in asked else METHODS
        found = [variant for method in methods for variant in self._variants_of(method)]
        tokens = self.job.tokens
        rated = [replace(each, quality=quality(self.geometry, each, tokens, self.best_rank)) for each in found]
        return sorted(rated, key=lambda each: -each.quality)

    def _variants_of(self, method: Method) -> list[Variant]:
        asked, values = self.asked, self.values
        adapts = method in ("lora", "qlora")
        optimizers = (_ADAPTER_OPTIMIZERS if adapts else _WEIGHT_OPTIMIZERS)[self.device]
        if "optimizer.kind" in asked:
            optimizers = (asked["optimizer.kind"],)
        ranks: tuple[int, ...] = (self.best_rank,)
        if adapts and "method.rank" not in asked:
            # What lies between learns hardly more than the lower and takes hardly less than the higher.
            ranks = tuple(dict.fromkeys((self.best_rank, max(usual.LEAST_RANK, self.best_rank // 2), usual.LEAST_RANK)))
        targets = self._targets() if adapts else self._targets()[:1]
        depths: tuple[int, ...] = (values["method.trained_layers"],)
        if method == "partial" and "method.trained_layers" not in asked:
            depths = tuple(dict.fromkeys(math.ceil(self.geometry.layers / each) for each in _PARTIAL_SHARES))
        # Plain scales take 0.37 bits a weight more and were never found to be better (QLoRA, table 4).
        double_quantisation = asked.get("method.double_quantisation", True)
        return [
            Variant(method, optimizer, rank, target, depth, double_quantisation)
            for optimizer in optimizers
            for rank in ranks
            for target in targets
            for depth in depths
        ]

    def _targets(self) -> tuple[Any, ...]:
        if "method.targets" in self.asked:
            given = self.asked["method.targets"]
            return (given if isinstance(given, str) else tuple(given),)
        last = {name.rpartition(".")[2] for name in self.geometry.linear_shapes}
        return ("all-linear", _ATTENTION_LAYERS) if last > set(_ATTENTION_LAYERS) else ("all-linear",)
