"""The ladder: what a run gives up, one rung at a time, when memory runs out, so that it goes on learning the same.

Every rung keeps the rows of an optimizer step: micro-batch x accumulation stays constant, and the loss is normalised
by the step's true number of targets, so the losses go on as if nothing had happened. What would change what is learnt
(shorter rows, another method, a lower rank) is no rung: that is a person's to decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Where = Literal["loading", "step", "evaluation", "answers", "saving"]
"""What a run was doing when memory ran out."""

WHERES: tuple[Where, ...] = ("loading", "step", "evaluation", "answers", "saving")

EVALUATION_TOKENS = "evaluation.batch_tokens"
"""Tokens of held-out rows that go through the model at once: no field of a spec, micro-batch x length unless set."""
ANSWER_BATCH = "evaluation.answer_batch"
"""Held-out rows answered at once: no field of a spec."""
USUAL_ANSWER_BATCH = 32
"""Enough to fill a small machine."""
ANSWER_TOKENS = 4096
"""Tokens of prompts and answers that may be held at once however small the training step is; else the step's."""

ADJUSTABLE = (
    "train.micro_batch",
    "train.gradient_accumulation",
    "train.gradient_checkpointing",
    "train.offload_checkpoints",
    "train.loss_chunk",
    "optimizer.kind",
    "evaluation.answers",
    EVALUATION_TOKENS,
    ANSWER_BATCH,
)
"""Every field that a rung may change."""

# Recompute is taken up gradually: every fourth layer costs a twelfth of a step's time, every layer a third.
_MORE_RECOMPUTE = {0: 4, 2: 1, 3: 1, 4: 2}
_RAREST_RECOMPUTE = 4
# Below this many targets at once the logits of even a vocabulary of 256 k take 64 MB, and the head's product is slow.
_LEAST_LOSS_CHUNK = 64
# Evaluation and answers shrink by this much at a time: a restart costs more than the batches that follow it.
_SHRINKING = 4
# Optimizers with the same update whose state may leave the GPU, then those that keep it in 8 bits.
_LEANER_OPTIMIZER = {
    "adamw": "paged_adamw",
    "paged_adamw": "paged_adamw_8bit",
    "adamw_8bit": "paged_adamw_8bit",
}


@dataclass(frozen=True, slots=True)
class Rung:
    """One step down. `changes` maps a field ("train.micro_batch") to its (old, new) value; `why` is a clause."""

    changes: Mapping[str, tuple[Any, Any]]
    why: str

    def after(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` with the changes made."""
        return {**values, **{field: new for field, (_, new) in self.changes.items()}}


def next_rung(values: Mapping[str, Any], where: Where, *, on_gpu: bool, learnt: bool) -> Rung | None:
    """The next rung for a run with `values` (each of ADJUSTABLE) that ran out of memory at `where`; None at the end.

    `learnt`: whether there is an optimizer state that another optimizer would lose. Going down again and again comes
    to the end: every rung makes something smaller that no other makes larger.
    """
    if where == "loading":
        return _all_at_once(values, on_gpu, learnt)
    candidates = {"evaluation": _evaluation, "answers": _answers}.get(where)
    own = candidates(values) if candidates else None
    return own or _step(values, on_gpu, learnt)


def usual_answer_batch(step_tokens: int, answer_tokens: int) -> int:
    """Held-out rows answered at once, when a step's micro-batch has `step_tokens` and a row takes `answer_tokens`."""
    return min(USUAL_ANSWER_BATCH, max(1, max(step_tokens, ANSWER_TOKENS) // answer_tokens))


def ladder_text(rung: Rung) -> str:
    """The changes in words: "train.micro_batch 4 -> 2, train.gradient_accumulation 2 -> 4"."""
    return ", ".join(f"{field} {_plain(old)} -> {_plain(new)}" for field, (old, new) in rung.changes.items())


def _plain(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _evaluation(values: Mapping[str, Any]) -> Rung | None:
    tokens = values[EVALUATION_TOKENS]
    if tokens <= 1:
        return None
    # Of a budget below a row's length every row goes alone.
    fewer = tokens // _SHRINKING if tokens >= values["data.sequence_length"] * _SHRINKING else 1
    return Rung({EVALUATION_TOKENS: (tokens, fewer)}, "fewer held-out rows at once")


def _answers(values: Mapping[str, Any]) -> Rung | None:
    rows, answers = values[ANSWER_BATCH], values["evaluation.answers"]
    if rows > 1:
        return Rung({ANSWER_BATCH: (rows, max(1, rows // _SHRINKING))}, "fewer held-out rows answered at once")
    if answers:
        return Rung({"evaluation.answers": (answers, 0)}, "no answers: one row at a time was too much")
    return None


def _step(values: Mapping[str, Any], on_gpu: bool, learnt: bool) -> Rung | None:
    """What the training step needs, the cheapest first."""
    return next(_step_rungs(values, on_gpu, learnt), None)


def _step_rungs(values: Mapping[str, Any], on_gpu: bool, learnt: bool) -> Iterator[Rung]:
    rows, accumulation = values["train.micro_batch"], values["train.gradient_accumulation"]
    if rows > 1:
        fewer = _smaller_divisor(rows * accumulation, math.ceil(rows / 2))
        more = rows * accumulation // fewer
        yield Rung(
            {"train.micro_batch": (rows, fewer), "train.gradient_accumulation": (accumulation, more)},
            "fewer rows at once, the same rows in a step",
        )
    every = values["train.gradient_checkpointing"]
    if every != 1:
        oftener = _MORE_RECOMPUTE.get(every, _RAREST_RECOMPUTE)
        yield Rung({"train.gradient_checkpointing": (every, oftener)}, "more layers recompute their activations")
    chunk = values["train.loss_chunk"]
    if chunk > _LEAST_LOSS_CHUNK:
        smaller = max(_LEAST_LOSS_CHUNK, chunk // _SHRINKING)
        yield Rung({"train.loss_chunk": (chunk, smaller)}, "the logits of fewer targets at once")
    if on_gpu and not values["train.offload_checkpoints"]:
        yield Rung({"train.offload_checkpoints": (False, True)}, "what layers recompute from waits in RAM")
    kind = values["optimizer.kind"]
    if on_gpu and not learnt and kind in _LEANER_OPTIMIZER:
        yield Rung({"optimizer.kind": (kind, _LEANER_OPTIMIZER[kind])}, "a leaner optimizer state")


def _all_at_once(values: Mapping[str, Any], on_gpu: bool, learnt: bool) -> Rung | None:
    """Every rung of the step together: a device that is full before the first step will not hold a wider one."""
    now = dict(values)
    while rung := _step(now, on_gpu, learnt):
        now = rung.after(now)
    changes = {field: (values[field], now[field]) for field in values if now[field] != values[field]}
    return Rung(changes, "memory was short before the first step: the leanest way") if changes else None


def _smaller_divisor(product: int, limit: int) -> int:
    """The largest divisor of `product` up to `limit`."""
    return next(divisor for divisor in range(limit, 0, -1) if product % divisor == 0)
