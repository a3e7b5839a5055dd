"""Settings that the ladder or a person changed while the run went on: handed to the worker beside its spec, which
stays as its person wrote it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from profiles.ladder import ADJUSTABLE, ANSWER_BATCH, EVALUATION_TOKENS, usual_answer_batch

if TYPE_CHECKING:
    from engine.spec import RunSpec

ADJUSTED_VARIABLE = "FINETUI_ADJUSTED"
"""The environment variable in which the worker finds the changed fields, as JSON."""

ANYWAY_VARIABLE = "FINETUI_GO_ON_ANYWAY"
"""The environment variable that is not empty where a worker is to go on though things changed since its checkpoint."""


LEARNING_RATE = "optimizer.learning_rate"
"""What a person may change for the rest of a run: the schedule goes on at its place, with this as its highest rate."""

SEAL = "privacy.seal"
"""The other: how surely the trainer is kept from the network."""

_CHANGEABLE = frozenset((*ADJUSTABLE, LEARNING_RATE, SEAL))
_NO_FIELDS = frozenset((EVALUATION_TOKENS, ANSWER_BATCH))


def adjusted_spec(spec: RunSpec, adjusted: Mapping[str, Any]) -> RunSpec:
    """`spec` with the `adjusted` fields; those that are no field of a spec are left out. Raises Problem for a value
    that a spec may not have."""
    values = spec.model_dump(mode="json", exclude_none=True)
    for field, value in adjusted.items():
        section, _, name = field.partition(".")
        if field in _CHANGEABLE - _NO_FIELDS:
            values[section][name] = value
    from engine.spec import parse_spec  # here, since the supervisor comes by without it

    return parse_spec(values, "settings that were changed during the run")


def ladder_values(spec: RunSpec, adjusted: Mapping[str, Any]) -> dict[str, Any]:
    """What the ladder goes down from: each of ADJUSTABLE and data.sequence_length, as they are in force now."""
    now = adjusted_spec(spec, adjusted)
    values: dict[str, Any] = {"data.sequence_length": now.data.sequence_length}
    step_tokens = now.train.micro_batch * now.data.sequence_length
    answer_batch = usual_answer_batch(step_tokens, now.evaluation.max_new_tokens)
    for field in ADJUSTABLE:
        section, _, name = field.partition(".")
        if field == EVALUATION_TOKENS:
            values[field] = min(step_tokens, adjusted.get(field, step_tokens))
        elif field == ANSWER_BATCH:
            values[field] = min(answer_batch, adjusted.get(field, answer_batch))
        else:
            values[field] = getattr(getattr(now, section), name)
    return values


def with_learning_rate(spec: RunSpec, adjusted: Mapping[str, Any], rate: float) -> dict[str, Any] | None:
    """The fields of an `adjusted` event that gives the rest of a run the learning rate `rate`; None when it has that
    already. Raises Problem for a rate that no spec may have."""
    now = adjusted_spec(spec, adjusted).optimizer.learning_rate
    adjusted_spec(spec, {**adjusted, LEARNING_RATE: rate})
    if rate == now:
        return None
    text = f"a person set the learning rate to {rate:g} (was {now:g}) for the rest of the run"
    return {"changes": {LEARNING_RATE: [now, rate]}, "text": text}


def adjusted_from_environment() -> dict[str, Any]:
    """The changed fields that the supervisor handed to this process; none when it handed over nothing."""
    values = json.loads(os.environ.pop(ADJUSTED_VARIABLE, "{}"))
    assert isinstance(values, dict) and values.keys() <= _CHANGEABLE, values
    return values
