"""RunSpec: what a run is asked to do, as written in a run's spec.toml and typed by a person.

Every value is concrete, so that a spec read a year later says what was done; only dtype and attention may stay
"auto", which the worker resolves from the device it really finds and journals with the reason.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from engine.data.source import Format, Shape, Source
from engine.seal.request import Level
from profiles.problem import Problem, printable

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused, strict about types (a rate written "1e-4" is an error)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class ModelSection(Section):
    path: Path
    """The base model's directory: config.json, tokenizer, safetensors weights."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the matrix work. auto: bf16 where the device computes it natively, else fp16 (GPU) or fp32 (CPU)."""
    attention: Literal["auto", "varlen", "sdpa", "eager"] = "auto"
    """auto: varlen flash attention where the GPU has it, else one fused attention call per document."""


class SourceSection(Section):
    """One file, folder or stream of rows. In TOML a path alone stands for all of it: train = ["a.jsonl"]."""

    path: Path
    """A file of a kind that finetui reads (JSONL, JSON, CSV, Parquet, Arrow, text, Markdown, packed or not), or a
    folder of them."""
    format: Format = "auto"
    """auto: told from the file's contents."""
    encoding: str = "auto"
    """auto: UTF-8 where it is valid, else guessed and said."""
    delimiter: str = "auto"
    """csv: the character between fields."""
    records: str = ""
    """json: where the list of rows stands in a nested document, such as "data.items"."""
    shape: Shape = "auto"
    """What the rows are; auto: told from their fields."""
    columns: dict[str, str] = {}
    """Which column plays which part, such as {question = "ask", answer = "reply"}."""
    prompt_template: str = ""
    """shape "template": Jinja that makes the prompt from a row's columns."""
    answer_template: str = ""
    """shape "template": Jinja that makes the answer, or the text where there is no prompt."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Share of this source in an epoch against the others' weights. The epoch is as long as it takes for every row to
    come at least once, so that sources short of their share are repeated."""
    repeats: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    """How often each row comes in an epoch, when no weights are given; 0.5 takes another half each time."""

    def source(self) -> Source:
        """What the readers need of it."""
        return Source(
            path=self.path,
            format=self.format,
            encoding=self.encoding,
            delimiter=self.delimiter,
            records=self.records,
            shape=self.shape,
            columns=self.columns,
            prompt_template=self.prompt_template,
            answer_template=self.answer_template,
        )

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @model_serializer(mode="wrap")
    def _as_path(self, handler: SerializerFunctionWrapHandler) -> Any:
        """A path alone where nothing else was said, so that specs stay readable."""
        said = {name: value for name, value in handler(self).items() if value != type(self).model_fields[name].default}
        return said["path"] if list(said) == ["path"] else said


class DataSection(Section):
    train: Annotated[tuple[SourceSection, ...], Field(min_length=1)]
    """What is learnt from: paths, or tables with a path and how to read it."""
    held_out: SourceSection | None = None
    """What is never trained on. Without it, `held_out_share` of the training rows is set aside."""
    held_out_share: Share = 0.05
    """Share of the training rows set aside when no held-out file is given; 0 sets none aside."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """With a row's content decides whether the row is held out."""
    group_by: str | None = None
    """A column whose equal values are never divided between training and held-out rows."""
    stratify_by: str | None = None
    """A column whose values are held out in equal shares."""
    rows: Count | None = None
    """Learn from this many rows only; more rows later include these. None: all."""
    benchmarks: tuple[Path, ...] = ()
    """Files whose rows must not be among the training rows; those that are get set aside."""
    duplicates: Literal["keep", "drop_exact", "drop_near"] = "keep"
    """What becomes of a row that is the same as, or nearly the same as, an earlier one."""
    personal: Literal["leave", "mask", "pseudonymise"] = "leave"
    """What becomes of names, addresses, numbers and secrets that are found in the text."""
    chat_template: str = "model"
    """model: the model's own; else the name of one that finetui knows, or a path to a .jinja file."""
    sequence_length: Annotated[int, Field(ge=8)] = 1024
    """Longest row, in tokens; longer conversations are cut at the end and counted."""
    train_on: Literal["answers", "last_answer", "everything"] = "answers"
    """Which tokens carry loss; of preference pairs and rows with thumbs always those of the answers."""
    packing: bool = True
    """Put several conversations into one row of `sequence_length` tokens, isolated from each other."""
    group_by_length: bool = True
    """Where packing is off, put rows of similar length into one batch."""
    max_rejected_share: Share = 0.01
    """The run stops before training when a larger share of rows cannot be used."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of what is trained on."""
        return tuple(source.path for source in self.train)

    @property
    def sources(self) -> tuple[SourceSection, ...]:
        """All that is read: what is trained on, then what is held out."""
        return (*self.train, *(() if self.held_out is None else (self.held_out,)))


class MethodSection(Section):
    kind: Literal["lora", "qlora", "partial", "full"] = "lora"
    """lora: small matrices beside frozen weights; qlora: the same over 4-bit weights; partial: the last decoder layers;
    full: every weight."""
    rank: Count = 16
    """Inner width of the LoRA matrices."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """LoRA's update is scaled by alpha / rank."""
    dropout: Share = 0.0
    """Dropout in front of the LoRA matrices."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the linear layers that get LoRA matrices; all-linear is every one but the output head."""
    trained_layers: Count = 4
    """partial: how many decoder layers learn, counted from the output."""
    double_quantisation: bool = True
    """qlora: quantise the scales of the 4-bit blocks as well, which saves 0.37 bits a weight."""

    @property
    def adapts(self) -> bool:
        """Whether an adapter beside the base is trained and handed over, rather than the model's own weights."""
        return self.kind in ("lora", "qlora")


class ObjectiveSection(Section):
    kind: Literal["next_token", "dpo", "orpo", "simpo", "kto", "classification", "embedding"] = "next_token"
    """What is minimised. dpo, orpo and simpo learn from preference pairs, kto from answers with thumbs up or down,
    classification from texts with labels, embedding from pairs of similar texts."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """dpo, kto: how strongly the model is held to the base; simpo: the scale of its reward (2 where it is not given);
    orpo: the weight of the odds ratio."""
    margin: Annotated[float, Field(ge=0)] = 0.5
    """simpo: by how much the better answer's reward is to lead, as a share of beta."""
    liked_weight: Annotated[float, Field(ge=0)] = 1.0
    """kto: weight of the answers that were liked, to balance unequal counts."""
    disliked_weight: Annotated[float, Field(ge=0)] = 1.0
    """kto: weight of the answers that were disliked."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """embedding: similarities are divided by it."""
    pooling: Literal["last", "mean"] = "mean"
    """embedding: which hidden states make a text's vector."""

    @model_validator(mode="before")
    @classmethod
    def _usual_beta(cls, values: Any) -> Any:
        """SimPO's rewards are of single tokens, and its paper's beta is twenty times that of the others."""
        if isinstance(values, dict) and values.get("kind") == "simpo" and "beta" not in values:
            return {**values, "beta": 2.0}
        return values

    @property
    def writes(self) -> bool:
        """Whether the model that is learnt answers in words."""
        return self.kind not in ("classification", "embedding")


class OptimizerSection(Section):
    kind: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor"] = "adamw"
    """adamw is torch's fused kernel, adafactor torch's too (factored second moments, no first); the others are
    bitsandbytes'."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """The highest rate of the schedule."""
    beta1: Share = 0.9
    beta2: Share = 0.999
    epsilon: Annotated[float, Field(gt=0, le=1e-2)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Decoupled weight decay, on matrices only: norms and biases have none."""
    max_gradient_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are scaled down to this norm; 0 switches clipping off."""


class ScheduleSection(Section):
    kind: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_share: Share = 0.03
    """Share of all steps over which the rate rises from zero."""
    minimum_share: Share = 0.0
    """Where cosine and linear end, as a share of the learning rate."""


class TrainSection(Section):
    epochs: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    """Passes over the training rows; ignored when max_steps is given."""
    max_steps: Count | None = None
    """Optimizer steps to take, whatever the epochs."""
    micro_batch: Count = 1
    """Rows that go through the model at once."""
    gradient_accumulation: Count = 1
    """Micro-batches per optimizer step; the loss is normalised by the step's true number of target tokens."""
    gradient_checkpointing: Annotated[int, Field(ge=0)] = 0
    """Recompute activations in the backward: 0 never, 1 in every layer, k in every k-th layer."""
    offload_checkpoints: bool = False
    """Keep the inputs of layers that recompute in RAM instead of on the GPU."""
    loss_chunk: Annotated[int, Field(ge=16)] = 1024
    """Target tokens whose logits exist at once."""
    probe: bool = True
    """Before the run, measure what a step takes on the longest rows, in under a minute and without learning from it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class EvaluationSection(Section):
    every_steps: Annotated[int, Field(ge=0)] = 50
    """Held-out loss every so many steps; 0 measures it only before and after."""
    rows: Annotated[int, Field(ge=0)] = 1000
    """Held-out rows that loss is measured on, the first in an order of chance that every run of the same data has; of
    a long text each part counts. 0: all. With 1,000 a share is known to within 1.6 points, one standard error."""
    answers: Annotated[int, Field(ge=0)] = 50
    """Held-out rows answered by the base and by the tuned model, for exact match and side by side; 0 for none."""
    max_new_tokens: Count = 256
    """Longest generated answer, in tokens."""


class CheckpointSection(Section):
    every_steps: Annotated[int, Field(ge=0)] = 100
    """Save every so many steps; 0 saves only at the end and when stopped."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints kept, beside the best one."""


class PrivacySection(Section):
    seal: Level = "best"
    """How surely the trainer is kept from the network. required: nothing is trained unless every layer of the seal
    holds on this machine; best: with those that it allows, told which are missing; off: with none."""
    samples: bool = True
    """Keep the held-out rows that were answered in the run's folder, in its journal among others, with the answers of
    base and tuned model, to be read side by side. False: how many were right is kept, and not a word of the data."""


class RunSpec(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Letters, digits, dots, dashes and underscores; part of the run folder's name."""
    model: ModelSection
    data: DataSection
    method: MethodSection = MethodSection()
    objective: ObjectiveSection = ObjectiveSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    train: TrainSection = TrainSection()
    evaluation: EvaluationSection = EvaluationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    privacy: PrivacySection = PrivacySection()

    @model_validator(mode="after")
    def _held_out_is_not_trained_on(self) -> RunSpec:
        if self.data.held_out is not None and self.data.held_out.path in self.data.paths:
            raise ValueError("data.held_out is also in data.train, so the held-out loss would measure memory")
        return self

    @property
    def rows_per_step(self) -> int:
        """Packed rows (or conversations, unpacked) that one optimizer step learns from."""
        return self.train.micro_batch * self.train.gradient_accumulation

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def parse_spec(values: dict[str, Any], where: str) -> RunSpec:
    """`values` (as read from TOML or JSON) as a RunSpec. Raises Problem naming `where` and the field."""
    _require_utf8(values, where)
    try:
        # Through JSON, since pydantic's strict mode takes a list for a tuple and text for a path only there.
        return RunSpec.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "spec"
        raise Problem(f"{where}, field {printable(field)}", _found(first), _fix(first)) from None


def _require_utf8(value: Any, where: str, field: str = "") -> None:
    """Raises Problem for a file whose name is no text: such a name comes from the command line, and has no place in a
    settings file, in JSON or in a tokenizer's own files."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _require_utf8(inner, where, f"{field}.{name}" if field else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_utf8(inner, where, field)
    elif isinstance(value, str | Path) and not _is_utf8(str(value)):
        what = f"{printable(value, 300)} is not UTF-8"
        fix = "Rename it, or make a link with a plain name that leads to it, and give that: ln -s OLD NEW."
        raise Problem(f"{where}, field {field}", what, fix)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def load_spec(path: Path) -> RunSpec:
    """The spec in a TOML file; relative paths in it are taken from the file's folder. Raises Problem."""
    return parse_spec(resolve_paths(read_toml(path), path.parent), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's tables. Raises Problem naming the file and, for a syntax error, the line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Problem(str(path), "there is no such file", "Check the path.") from None
    except UnicodeDecodeError as error:
        raise Problem(str(path), f"byte {error.start} is not UTF-8", "Save the file as UTF-8.") from None
    except OSError as error:
        raise Problem(str(path), f"cannot be read: {error.strerror}", "Check the path and its permissions.") from None
    except tomllib.TOMLDecodeError as error:
        raise Problem(str(path), f"is not valid TOML: {error}", "Correct the file at that place.") from None


def resolve_paths(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """`values` with the paths in [model] and [data] made absolute against `base`."""

    def absolute(value: Any) -> Any:
        if isinstance(value, str | Path):
            return str((base / Path(value).expanduser()).absolute())
        if isinstance(value, dict) and "path" in value:
            return {**value, "path": absolute(value["path"])}
        return [absolute(item) for item in value] if isinstance(value, list | tuple) else value

    resolved = dict(values)
    for section, keys in (("model", ("path",)), ("data", ("train", "held_out", "benchmarks"))):
        if isinstance(table := resolved.get(section), dict):
            resolved[section] = {key: absolute(value) if key in keys else value for key, value in table.items()}
    data = resolved.get("data")
    if isinstance(data, dict) and str(data.get("chat_template", "")).endswith(".jinja"):  # else a name
        resolved["data"] = {**data, "chat_template": absolute(data["chat_template"])}
    return resolved


def set_value(values: dict[str, Any], assignment: str) -> None:
    """Apply a `section.key=value` from the command line to `values` in place. Raises Problem."""
    key, equals, text = assignment.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise Problem(f"--set {printable(assignment)}", "is not KEY=VALUE", "Write it as train.epochs=3, for example.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word such as `lora` or a path
    table = values
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise Problem(f"--set {printable(key)}", f"{part} is not a section", f"See the fields of {parts[0]}.")
    table[parts[-1]] = value


def _found(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "is not a setting of finetui"
    if error["type"] == "missing":
        return "is missing"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    value = error["input"]
    return message if isinstance(value, dict) else f"is {printable(repr(value))}; {message[0].lower()}{message[1:]}"


def _fix(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        names = _field_names(location[:-1])
        close = difflib.get_close_matches(location[-1], names, n=1)
        return f"Did you mean {close[0]}?" if close else f"Settings here: {', '.join(names)}."
    if error["type"] == "missing":
        return f"Add {'.'.join(location)}."
    return "Correct the value."


def _field_names(location: list[str]) -> list[str]:
    section: type[BaseModel] = RunSpec
    for part in location:
        if part in section.model_fields:  # else a position in a list of sections
            section = _section_in(section.model_fields[part].annotation) or section
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, by itself, in a list or optionally."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for each in get_args(annotation) if (found := _section_in(each))), None)
