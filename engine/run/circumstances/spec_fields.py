"""Which fields of a spec decide what is learnt, bit for bit, and the values they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.spec import RunSpec, SourceSection

_SOURCE = frozenset(
    {
        *("format", "encoding", "delimiter", "records", "shape", "columns"),
        *("prompt_template", "answer_template", "weight", "repeats"),
    }
)

LEARNING = frozenset(
    {
        *("model.dtype", "model.attention"),
        *(f"data.train.{name}" for name in _SOURCE),
        *(f"data.held_out.{name}" for name in _SOURCE - {"weight", "repeats"}),
        *("data.held_out_share", "data.split_seed", "data.group_by", "data.stratify_by", "data.rows"),
        *("data.duplicates", "data.personal", "data.chat_template", "data.sequence_length", "data.train_on"),
        *("data.packing", "data.group_by_length"),
        *("method.kind", "method.rank", "method.alpha", "method.dropout", "method.targets", "method.trained_layers"),
        "method.double_quantisation",
        *("objective.kind", "objective.beta", "objective.margin", "objective.liked_weight"),
        *("objective.disliked_weight", "objective.temperature", "objective.pooling"),
        *("optimizer.kind", "optimizer.learning_rate", "optimizer.beta1", "optimizer.beta2", "optimizer.epsilon"),
        *("optimizer.weight_decay", "optimizer.max_gradient_norm"),
        *("schedule.kind", "schedule.warmup_share", "schedule.minimum_share"),
        # With a constant schedule the number of steps decides nothing but the end; else every step's rate.
        *("train.epochs", "train.max_steps"),
        # The order of a step's sums, and so their rounding.
        *("train.micro_batch", "train.gradient_accumulation", "train.loss_chunk"),
        "train.seed",
        # Which checkpoint is the best depends on the rows that they are measured on.
        "evaluation.rows",
    }
)
"""Those that decide it. Sources are data.train and data.held_out, whichever it is."""

OTHERS = frozenset(
    {
        "name",
        # Folders and files may be moved; what they hold is compared by itself.
        *("model.path", "data.train.path", "data.held_out.path", "data.benchmarks"),
        *("data.held_out.weight", "data.held_out.repeats"),
        "data.max_rejected_share",
        # Recomputing gives the same numbers again, wherever what it starts from was kept.
        *("train.gradient_checkpointing", "train.offload_checkpoints", "train.probe"),
        *("evaluation.every_steps", "evaluation.answers", "evaluation.max_new_tokens"),
        *("checkpoint.every_steps", "checkpoint.keep"),
        *("privacy.seal", "privacy.samples"),
    }
)
"""Those that decide names, places, how often one looks, and what it takes, but not what is learnt."""

# Fields of circumstances by which rows are read, made into tokens and told apart before a run keeps them.
_DECIDES_TOKENS = re.compile(
    r"data\.train(\.\d+\.(?!weight|repeats)\w+)?|data\.held_out(\.\w+)?"
    r"|data\.(group_by|stratify_by|split_seed|duplicates|personal|chat_template)|tokenizer\b.*"
)


def spec_circumstances(spec: RunSpec) -> dict[str, str]:
    """The fields of LEARNING with their values as text; the sources numbered from 1 ("data.train.2.weight")."""
    return {field: _text(value) for field, value in _fields(spec)}


def needs_new_data(field: str) -> bool:
    """Whether the rows have to be made into tokens again once `field`, of a run's circumstances, has another value."""
    return _DECIDES_TOKENS.fullmatch(field) is not None


def _fields(spec: RunSpec) -> Iterator[tuple[str, Any]]:
    for section_name in type(spec).model_fields:
        section = getattr(spec, section_name)
        if section_name == "data":
            yield "data.train", f"{len(section.train)} source{'s' * (len(section.train) > 1)}"
            for number, source in enumerate(section.train, 1):
                yield from _of_source("data.train", f"data.train.{number}", source)
            yield "data.held_out", "a share of the rows" if section.held_out is None else "a source of its own"
            if section.held_out is not None:
                yield from _of_source("data.held_out", "data.held_out", section.held_out)
        for name in getattr(type(section), "model_fields", ()):
            if (field := f"{section_name}.{name}") in LEARNING:
                value = getattr(section, name)
                # A file may be moved; what a template says is compared by itself.
                yield field, "a file" if field == "data.chat_template" and value.endswith(".jinja") else value


def _of_source(kind: str, place: str, source: SourceSection) -> Iterator[tuple[str, Any]]:
    for name in type(source).model_fields:
        if f"{kind}.{name}" in LEARNING:
            yield f"{place}.{name}", getattr(source, name)


def _text(value: Any) -> str:
    """A value as TOML has it, texts without quotes."""
    if value is None:
        return "not set"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, sort_keys=True)
