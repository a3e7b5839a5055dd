"""What the New run screen has gathered so far, and the settings it lets a person change. No widgets here."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from engine.seal.request import LEVELS, Level
from engine.spec import RunSpec, SourceSection, parse_spec
from profiles.problem import Problem, printable
from tui.format import count_text, learning_rate_text
from tui.widgets.data.board import DataChoice
from tui.widgets.new_run.command import sources_text, value_text

if TYPE_CHECKING:
    from engine.propose import Gathered, Proposal
    from profiles.planner import Profile

Value = str | int | float | bool
METHODS = ("lora", "qlora", "partial", "full")
ADAPTERS = ("lora", "qlora")
SEAL = "privacy.seal"


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the settings step: a field of RunSpec, the values the arrow keys walk through, its looks"""

    field: str
    label: str
    ladder: tuple[Value, ...]
    meaning: str
    show: Callable[[Any], str] = str
    unit: str = ""
    methods: tuple[str, ...] = METHODS
    """The methods that this setting means something for."""

    def applies(self, spec: RunSpec) -> bool:
        """Whether this setting changes anything in what `spec` does."""
        if self.field == "train.offload_checkpoints" and not spec.train.gradient_checkpointing:
            return False
        return spec.method.kind in self.methods

    def value(self, spec: RunSpec) -> Value:
        section, name = self.field.split(".")
        return getattr(getattr(spec, section), name)

    def step(self, value: Value, direction: int) -> Value:
        """The next value in `direction` (1 or -1); words wrap around, numbers stop at the ends."""
        if isinstance(value, str | bool):
            return self.ladder[(self.ladder.index(value) + direction) % len(self.ladder)]
        rungs = [rung for rung in self.ladder if (rung > value if direction > 0 else rung < value)]  # type: ignore[operator]
        return (rungs[0] if direction > 0 else rungs[-1]) if rungs else value

    def parse(self, text: str) -> Value:
        """A typed value. Raises Problem when it is none of the words, or no number, that this takes."""
        typed = text.strip().casefold()
        words = {self.show(value).casefold(): value for value in self.ladder}
        if typed in words:
            return words[typed]
        if isinstance(self.ladder[0], str | bool):
            close = [value for word, value in words.items() if typed and word.startswith(typed)]
            if len(close) == 1:
                return close[0]
            raise Problem(self.label, f"is {printable(repr(text))}", f"Type one of: {', '.join(words)}.")
        try:
            number = float(typed.replace(",", "").replace("_", "").split(" ")[0])
        except ValueError:
            raise Problem(self.label, f"is {printable(repr(text))}, not a number", "Type a number.") from None
        if not math.isfinite(number):
            raise Problem(self.label, "is not a finite number", "Type a number.")
        # 1.0 typed for a count is a count; 1.5 is left to the spec, which says why it is refused.
        whole = isinstance(self.ladder[0], int) and number.is_integer()
        return int(number) if whole else number


def _doubling(first: int, last: int) -> tuple[int, ...]:
    return tuple(first * 2**power for power in range(int(math.log2(last // first)) + 1))


def _one_two_five(first_power: int, last_power: int) -> tuple[float, ...]:
    powers = range(first_power, last_power + 1)
    return tuple(float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5))


def _checkpointing_text(every: int) -> str:
    return {0: "never", 1: "every layer", 2: "every 2nd layer", 3: "every 3rd layer"}.get(
        every, f"every {every}th layer"
    )


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _cadence_text(steps: int) -> str:
    return count_text(steps) if steps else "before, after"


SETTINGS = (
    Setting("method.kind", "method", METHODS, "how the model becomes trainable"),
    Setting("method.rank", "rank", _doubling(1, 256), "inner width of the LoRA matrices", methods=ADAPTERS),
    Setting(
        "method.alpha",
        "alpha",
        tuple(float(each) for each in _doubling(1, 512)),
        "LoRA's update is scaled by alpha / rank",
        lambda value: f"{value:g}",
        methods=ADAPTERS,
    ),
    Setting(
        "method.trained_layers",
        "trained layers",
        (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96),
        "how many decoder layers learn, counted from the output",
        methods=("partial",),
    ),
    Setting(
        "data.sequence_length",
        "sequence length",
        _doubling(128, 131072),
        "longest row; longer conversations are cut at the end",
        count_text,
        "tokens",
    ),
    Setting(
        "train.epochs",
        "epochs",
        (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 10.0, 20.0),
        "passes over the training rows",
        lambda value: f"{value:g}",
    ),
    Setting(
        "optimizer.learning_rate",
        "learning rate",
        _one_two_five(-6, -2),
        "the highest rate of the schedule",
        learning_rate_text,
    ),
    Setting("schedule.kind", "schedule", ("cosine", "linear", "constant"), "how the rate falls after the warm-up"),
    Setting("train.micro_batch", "micro-batch", _doubling(1, 256), "rows that go through the model at once"),
    Setting("train.gradient_accumulation", "accumulation", _doubling(1, 256), "micro-batches per optimizer step"),
    Setting(
        "data.packing",
        "packing",
        (True, False),
        "several conversations in one row, isolated from each other",
        _yes_no,
    ),
    Setting(
        "train.gradient_checkpointing",
        "checkpointing",
        (0, 1, 2, 3, 4),
        "recompute activations in the backward: slower, but less memory",
        _checkpointing_text,
    ),
    Setting(
        "train.offload_checkpoints",
        "offload",
        (True, False),
        "keep the inputs of layers that recompute in RAM: slower, but less of the GPU's memory",
        _yes_no,
    ),
    Setting(
        "optimizer.kind",
        "optimizer",
        ("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor"),
        "8-bit and paged ones take less memory, adafactor the least",
    ),
    Setting(
        "evaluation.every_steps",
        "held-out loss",
        (0, 5, 10, 20, 25, 50, 100, 200, 500, 1000),
        "how often the loss on held-out rows is measured",
        _cadence_text,
        "steps",
    ),
    Setting(SEAL, "seal", LEVELS, "how surely the trainer is kept from the network"),
)


# What a move on the plan leaves as it is, besides what it moves; learning rate, accumulation and cadence follow it.
_KEPT = (
    "method.kind",
    "method.rank",
    "method.trained_layers",
    "method.targets",
    "method.double_quantisation",
    "data.sequence_length",
    "train.micro_batch",
    "train.gradient_checkpointing",
    "train.offload_checkpoints",
    "train.loss_chunk",
    "optimizer.kind",
)


def kept_values(profile: Profile) -> dict[str, Any]:
    """The values of `profile` that stay when one of them is moved, by dotted field."""
    return {field: profile.values[field] for field in _KEPT if field in profile.values}


def kept_reasons(values: Mapping[str, Any], reasons: Mapping[str, str], profile: Profile) -> dict[str, str]:
    """`reasons` of `values`, with the profile's own for each value that is still the profile's."""
    own = {field: why for field, why in profile.reasons.items() if values.get(field) == profile.values.get(field)}
    return {**reasons, **own}


@dataclass
class Draft:
    """The choices so far; `overrides` holds only what a person changed, by dotted field name."""

    model: Path | None = None
    sources: tuple[SourceSection, ...] = ()
    """What is learnt from, with how to read it where that was said."""
    held_out_source: SourceSection | None = None
    data: dict[str, Value] = field(default_factory=dict)
    """Settings that were chosen on the Data screen, by dotted field; they stay whatever the model is."""
    overrides: dict[str, Value] = field(default_factory=dict)
    name: str | None = None
    profile: str | None = None
    """The name of the plan's profile that the rest is proposed from; None takes the best one."""
    moved: Profile | None = None
    """That profile, where settings of it were moved on the plan: the others then stay as it has them."""
    gathered: Gathered | None = None
    """What was read of the model and data, so that no price reads them again."""
    proposal: Proposal | None = None
    unsealed_agreed: bool = False
    """Whether a person said that this run may train without the seal."""

    @property
    def seal(self) -> Level:
        """How surely the trainer is to be kept from the network."""
        usual = self.proposal.spec.privacy.seal if self.proposal is not None else "best"
        return cast(Level, self.asked.get(SEAL, usual))

    @property
    def train(self) -> tuple[Path, ...]:
        return self.choice.paths

    @property
    def held_out(self) -> Path | None:
        return self.choice.held_out_path

    def learns_from(self, choice: DataChoice) -> bool:
        """Whether its files are those that were chosen before, so that what was set for them stays."""
        return (choice.paths, choice.held_out_path) == (self.train, self.held_out)

    def take_data(self, choice: DataChoice) -> None:
        """Learn from what the Data screen (or the choice of files) handed on."""
        self.sources, self.held_out_source = choice.sources, choice.held_out
        self.data = dict(choice.settings)
        self.model = self.model or choice.model
        self.gathered = None

    @property
    def choice(self) -> DataChoice:
        """What the Data screen would begin with."""
        return DataChoice(self.sources, self.held_out_source, self.data, self.model)

    @property
    def asked(self) -> dict[str, Any]:
        """Every value that the proposal must have, by dotted field."""
        return self.data | ({} if self.moved is None else kept_values(self.moved)) | self.overrides

    @property
    def nested_asked(self) -> dict[str, dict[str, Any]]:
        """The same by section, as in TOML."""
        nested: dict[str, dict[str, Any]] = {}
        for dotted, value in self.asked.items():
            section, name = dotted.split(".")
            nested.setdefault(section, {})[name] = value
        return nested

    def command(self) -> list[str]:
        """The words of the command that starts the same run."""
        words = ["finetui", "train", "--model", str(self.model)]
        for path in self.train:
            words += ["--data", str(path)]
        if self.held_out is not None:
            words += ["--held-out", str(self.held_out)]
        if self.name is not None:
            words += ["--name", self.name]
        if self.profile is not None and self.moved is None:
            words += ["--profile", self.profile]
        if any(not source.source().is_plain or source.weight or source.repeats != 1 for source in self.sources):
            words += ["--set", f"data.train={sources_text(self.sources)}"]
        for dotted, value in self.asked.items():
            words += ["--seal", str(value)] if dotted == SEAL else ["--set", f"{dotted}={value_text(value)}"]
        return words

    def command_text(self) -> str:
        return shlex.join(self.command())


def check(spec: RunSpec, setting: Setting, value: Value) -> None:
    """Raise Problem, with the setting's own name, when `spec` would not be valid with `value` there."""
    section, name = setting.field.split(".")
    values = spec.model_dump(mode="json", exclude_none=True)
    values[section][name] = value
    try:
        parse_spec(values, "settings")
    except Problem as problem:
        raise Problem(setting.label, problem.what, "Type another value; Esc leaves it as it was.") from None


def check_name(spec: RunSpec, name: str) -> None:
    """Raise Problem when `name` cannot be the name of a run."""
    try:
        parse_spec(spec.model_dump(mode="json", exclude_none=True) | {"name": name}, "settings")
    except Problem:
        raise Problem(
            "name",
            f"is {printable(repr(name))}",
            "Up to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit.",
        ) from None
