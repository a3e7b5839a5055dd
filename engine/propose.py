"""A complete RunSpec for a model, data and a machine, each value with its reason, and the memory it will take.

Only what depends on the model, the data or the machine is decided here; everything else keeps RunSpec's defaults.
Whatever a person set themselves (`overrides`) stays as it is, and the rest is fitted around it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.data.preview import DataPreview
from engine.data.shapes import Conversation
from engine.inputs import check_inputs
from engine.spec import RunSpec, parse_spec, resolve_paths
from profiles.geometry import Geometry
from profiles.hardware import Hardware
from profiles.memory import MemoryEstimate, estimate
from profiles.problem import Problem
from profiles.settings import Dtype, Settings

# Room left for what else runs on the device and for what the formulas do not see.
_BUDGET_SHARE = 0.9

_CHARACTERS_PER_TOKEN = 3.0
"""Of Latin text under the tokenizers of common models, on the safe side of the usual 3.5 to 4.5."""
_CHARACTERS_PER_TOKEN_SMALL_VOCABULARY = 2.0
_SMALL_VOCABULARY = 8192
_TEMPLATE_TOKENS = 8
"""What a chat template adds to each message."""
_LENGTH_MULTIPLE = 128
_LEAST_LENGTH, _USUAL_LENGTH_LIMIT = 512, 4096

_TOKENS_PER_STEP_LIMIT = 16_384
_WANTED_STEPS = 500
"""Small data want small steps: with the same rate and epochs the bundled data came to 63 % exact match in 198 steps
and to 94.5 % in 591."""
_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 8192}
"""Tokens in a micro-batch beyond which the device's matrix units are busy and only memory grows."""
_LOSS_SHARE = 0.04
"""Of the budget, for the logits of one chunk."""
_MATERIAL_STEPS = (5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)


@dataclass(frozen=True)
class Proposal:
    """A spec ready to launch. `reasons` has one sentence per decided field ("train.epochs")."""

    spec: RunSpec
    reasons: Mapping[str, str]
    estimate: MemoryEstimate
    budget_bytes: int
    geometry: Geometry
    previews: tuple[DataPreview, ...]
    """Of the training files, then of the held-out file if there is one."""

    @property
    def fits(self) -> bool:
        return self.estimate.peak_bytes <= self.budget_bytes


def propose(
    model: Path,
    train: Sequence[Path],
    held_out: Path | None,
    hardware: Hardware,
    overrides: Mapping[str, Any],
    name: str | None = None,
) -> Proposal:
    """Sensible values for everything; those in `overrides` (nested as in TOML) win. Sizes in bytes.

    A proposal that does not fit the memory is returned too, as the smallest there is (`fits` is False). Raises
    Problem for a model or data that cannot be trained on, and for an override that is no valid value.
    """
    data: dict[str, Any] = {"train": [str(path) for path in train]}
    if held_out is not None:
        data["held_out"] = str(held_out)
    inputs = {"name": name or _slug(train), "model": {"path": str(model)}, "data": data}
    asked = _merge(resolve_paths(inputs, Path.cwd()), resolve_paths(dict(overrides), Path.cwd()))
    spec = parse_spec(asked, "settings")
    found = check_inputs(spec)
    return _Proposer(asked, overrides, spec, found.geometry, found.previews, hardware).proposal()


def settings_of(spec: RunSpec, geometry: Geometry, hardware: Hardware) -> Settings:
    """What the memory formulas need of `spec` on `hardware`, every "auto" resolved as the worker resolves it."""
    gpu = hardware.gpus[0] if hardware.gpus else None
    dtype: Dtype
    if spec.model.dtype != "auto":
        dtype = spec.model.dtype
    elif gpu is None:
        dtype = "fp32"
    else:
        dtype = "bf16" if gpu.native_bf16 else "fp16"
    attention: Literal["varlen", "sdpa", "eager"]
    if spec.model.attention != "auto":
        attention = spec.model.attention
    elif gpu is not None and gpu.native_bf16 and dtype != "fp32" and geometry.head_dim <= 256:
        attention = "varlen"
    else:
        attention = "sdpa"
    return Settings(
        method=spec.method.kind,
        device="cpu" if gpu is None else "cuda",
        compute_dtype=dtype,
        attention=attention,
        sequence_length=spec.data.sequence_length,
        micro_batch=spec.train.micro_batch,
        gradient_accumulation=spec.train.gradient_accumulation,
        rank=spec.method.rank,
        dropout=spec.method.dropout,
        targets=spec.method.targets,
        optimizer=spec.optimizer.kind,
        gradient_checkpointing=spec.train.gradient_checkpointing,
        loss_chunk=spec.train.loss_chunk,
    )


def predict(spec: RunSpec, geometry: Geometry, hardware: Hardware) -> MemoryEstimate:
    """The memory that training `spec` takes on `hardware`'s first device."""
    return estimate(geometry, settings_of(spec, geometry, hardware))


def budget_bytes(hardware: Hardware) -> int:
    """Memory a run may plan with: what is free now on the first GPU, else in RAM, less a reserve."""
    free = hardware.gpus[0].free_bytes if hardware.gpus else hardware.ram.available_bytes
    return int(free * _BUDGET_SHARE)


class _Proposer:
    """Decides field by field. `asked` holds all a person gave, `decided` what is chosen here."""

    def __init__(
        self,
        asked: dict[str, Any],
        overrides: Mapping[str, Any],
        spec: RunSpec,
        geometry: Geometry,
        previews: tuple[DataPreview, ...],
        hardware: Hardware,
    ):
        self.asked, self.overrides = asked, overrides
        self.geometry, self.previews, self.hardware = geometry, previews, hardware
        self.budget_bytes = budget_bytes(hardware)
        self.device: Literal["cpu", "cuda"] = "cuda" if hardware.gpus else "cpu"
        self.decided: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}
        self.train_previews = previews[: len(spec.data.train)]
        self.rows = max(1, sum(each.estimated_rows for each in self.train_previews))

    def proposal(self) -> Proposal:
        self._decide_data()
        self._decide_method_values()
        spec, estimated = self._fit_memory()
        self._decide_cadence(spec)
        for section, values in self.overrides.items():
            if isinstance(values, dict):
                for key in values:
                    self.reasons.setdefault(f"{section}.{key}", "as you set it")
        return Proposal(self._spec(), self.reasons, estimated, self.budget_bytes, self.geometry, self.previews)

    def _decide_data(self) -> None:
        geometry = self.geometry
        longest = max(self._tokens(each, each.characters.maximum) for each in self.train_previews)
        usual = max(self._tokens(each, each.characters.p99) for each in self.train_previews)
        context = geometry.context_length or _USUAL_LENGTH_LIMIT
        wanted = longest if longest <= _USUAL_LENGTH_LIMIT else usual
        length = min(context, max(_LEAST_LENGTH, _round_up(wanted, _LENGTH_MULTIPLE)))
        why = f"holds the longest row, about {longest:,} tokens"
        if length < longest:
            limit = "the model's context" if length == context else "99 of 100 rows fit"
            why = f"{limit}; the longest row, about {longest:,} tokens, will be cut"
        self._decide("data.sequence_length", length, why)
        asked_length = self._spec().data.sequence_length
        if asked_length > context and geometry.context_length:
            raise Problem(
                "data.sequence_length",
                f"is {asked_length:,}, but the model's context is {context:,} tokens",
                f"Set it to {context} or less.",
            )
        if self._spec().data.held_out is None:
            share = 0.1 if self.rows < 200 else min(0.05, 500 / self.rows)
            held = max(1, round(share * self.rows))
            self._decide("data.held_out_share", round(share, 4), f"about {held:,} rows to measure on")

    def _decide_method_values(self) -> None:
        tokens, width = self._epoch_tokens(), self.geometry.hidden_size
        rank = 16 if tokens < 1_000_000 else 32 if tokens < 20_000_000 else 64
        self._decide("method.rank", rank, f"enough for about {tokens:,} tokens of data")
        # LoRA's best rate falls with the model's width and hardly depends on the rank while alpha stays 32; full
        # tuning wants a tenth (Schulman et al., "LoRA Without Regret", Thinking Machines, 2025).
        self._decide("method.alpha", 32.0, "keeps the best learning rate the same at every rank")
        rate = min(5e-3, 5e-4 * (2000 / width) ** 0.781)
        why = f"for a model {width:,} wide"
        if self._spec().method.kind == "full":
            rate, why = rate / 10, f"{why}, full tuning"
        self._decide("optimizer.learning_rate", float(f"{rate:.1e}"), why)
        epochs = 4.0 if self.rows < 2_000 else 3.0 if self.rows < 10_000 else 2.0 if self.rows < 50_000 else 1.0
        self._decide("train.epochs", epochs, f"for about {self.rows:,} rows")
        per_target = 3 * 4 * self.geometry.vocab_size  # three fp32 rows: see profiles.memory.loss_bytes
        chunk = 2 ** int(math.log2(min(1024, max(64, self.budget_bytes * _LOSS_SHARE / per_target))))
        self._decide("train.loss_chunk", chunk, f"a vocabulary of {self.geometry.vocab_size:,} at that many targets")

    def _fit_memory(self) -> tuple[RunSpec, MemoryEstimate]:
        """The first rung of the ladder that fits, else the smallest; decides what the rung sets."""
        rungs = [(rung, self._spec(rung.values)) for rung in self._ladder()]
        priced = [(rung, spec, predict(spec, self.geometry, self.hardware)) for rung, spec in rungs]
        chosen = next((each for each in priced if each[2].peak_bytes <= self.budget_bytes), None)
        fits = chosen is not None
        rung, spec, estimated = chosen or min(priced, key=lambda each: each[2].peak_bytes)
        for name, value in rung.values.items():
            self._decide(name, value, rung.reasons[name] if fits else "the least memory; even this does not fit")
        return spec, estimated

    def _ladder(self) -> Iterator[_Rung]:
        """From the fastest to the leanest: smaller micro-batches, then recomputing, then 4-bit weights."""
        length = self._spec().data.sequence_length
        tokens = self._epoch_tokens() * self._spec().train.epochs
        per_step = min(_TOKENS_PER_STEP_LIMIT, tokens / _WANTED_STEPS)
        rows_per_step = max(1, round(per_step / self._row_tokens()))
        at_once = max(1, min(rows_per_step, _TOKENS_AT_ONCE[self.device] // length))
        micro_batch = self.asked.get("train", {}).get("micro_batch")
        methods = (("lora", "the base fits the memory as it is"), ("qlora", "the base fits only in 4 bits"))
        for method, why_method in methods:
            for recompute in (0, 1):
                size = micro_batch or at_once
                while True:
                    accumulation = max(1, round(rows_per_step / size))
                    yield _Rung(
                        {
                            "method.kind": method,
                            "train.gradient_checkpointing": recompute,
                            "train.micro_batch": size,
                            "train.gradient_accumulation": accumulation,
                        },
                        {
                            "method.kind": why_method,
                            "train.gradient_checkpointing": (
                                "saves the memory that is missing, for about a third more time"
                                if recompute
                                else "nothing has to be recomputed to fit"
                            ),
                            "train.micro_batch": f"{size * length:,} tokens at once",
                            "train.gradient_accumulation": f"{size * accumulation} rows a step",
                        },
                    )
                    if size == 1 or micro_batch:
                        break
                    size //= 2

    def _decide_cadence(self, spec: RunSpec) -> None:
        rows = math.ceil(self._epoch_tokens() / self._row_tokens())
        steps = spec.train.max_steps or math.ceil(spec.train.epochs * math.ceil(rows / spec.rows_per_step))
        every = _round_step(steps / 10)
        self._decide("evaluation.every_steps", every, f"about ten times in some {steps:,} steps")
        self._decide("checkpoint.every_steps", _round_step(steps / 5), "at most a fifth of the run is ever lost")
        slow = self.device == "cpu" and self.geometry.parameters > 200_000_000
        self._decide(
            "evaluation.answers",
            10 if slow else 50,
            "few, since this model answers slowly on a CPU" if slow else "enough to tell one percent from five",
        )
        answer = max((self._answer_tokens(each) for each in self.train_previews), default=0)
        self._decide(
            "evaluation.max_new_tokens",
            min(1024, max(64, _round_up(2 * answer, 64))),
            "twice the longest of the first answers in the data",
        )

    def _row_tokens(self) -> float:
        """Tokens that one row of a micro-batch holds: nearly all of it when packed, one conversation when not."""
        spec = self._spec()
        mean = self._epoch_tokens() / self.rows
        return 0.9 * spec.data.sequence_length if spec.data.packing else max(1.0, mean)

    def _epoch_tokens(self) -> int:
        return max(
            1,
            round(sum(self._tokens(each, each.characters.mean) * each.estimated_rows for each in self.train_previews)),
        )

    def _tokens(self, data: DataPreview, characters: float) -> int:
        """A guess at the tokens of a row of so many characters; scripts other than Latin take about one each."""
        sampled = "".join(text for sample in data.samples for text in sample.content.texts())
        other = sum(character > "\u024f" for character in sampled) / max(1, len(sampled))
        small = self.geometry.vocab_size < _SMALL_VOCABULARY
        latin = _CHARACTERS_PER_TOKEN_SMALL_VOCABULARY if small else _CHARACTERS_PER_TOKEN
        messages = [len(s.content.messages) for s in data.samples if isinstance(s.content, Conversation)]
        return math.ceil(characters * (other + (1 - other) / latin)) + _TEMPLATE_TOKENS * max(messages, default=1)

    def _answer_tokens(self, data: DataPreview) -> int:
        conversations = [s.content for s in data.samples if isinstance(s.content, Conversation)]
        answers = [each.messages[index].content for each in conversations for index in each.answers]
        return self._tokens(data, max(map(len, answers), default=0)) if answers else 128

    def _decide(self, field: str, value: Any, why: str) -> None:
        """Set `field` unless a person did."""
        section, key = field.split(".")
        if key not in self.asked.get(section, {}):
            self.decided[field] = value
            self.reasons[field] = why

    def _spec(self, further: Mapping[str, Any] | None = None) -> RunSpec:
        """The spec of all that is decided so far, `further` values included."""
        values: dict[str, Any] = {}
        for field, value in {**self.decided, **(further or {})}.items():
            section, key = field.split(".")
            values.setdefault(section, {})[key] = value
        return parse_spec(_merge(values, self.asked), "settings")


@dataclass(frozen=True)
class _Rung:
    """Field values to try together, and why each would be chosen."""

    values: dict[str, Any]
    reasons: dict[str, str]


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `above` over it, section by section."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged


def _slug(train: Sequence[Path]) -> str:
    """A run name from the first data file's."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", train[0].stem if train else "").strip("-._")
    return text[:64] or "run"


def _round_up(value: float, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


def _round_step(steps: float) -> int:
    """The round number at or below `steps`, at least the smallest."""
    return max((each for each in _MATERIAL_STEPS if each <= steps), default=_MATERIAL_STEPS[0])
