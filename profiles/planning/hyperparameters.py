"""Learning rate, rank, epochs, batch and the other values that memory does not decide, each with its source.

Every function returns a `Choice`: the value and one sentence that says why. Lengths and amounts are in tokens.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from profiles.settings import Method, Objective

RANKS = (8, 16, 32, 64, 128, 256)
"""From Hu et al. (LoRA, arXiv 2106.09685: 4 to 8 do for narrow tasks) to where an adapter stops being small."""

LEAST_RANK = RANKS[0]

_LENGTH_MULTIPLE = 128
_LEAST_LENGTH, _USUAL_LENGTH_LIMIT = 512, 4096
_LENGTH_WITHOUT_DATA = 2048

_TOKENS_PER_STEP_LIMIT = 16_384
_WANTED_STEPS = 500
"""Small data want small steps: with the same rate and epochs the bundled data came to 63 % exact match in 198 steps
and to 94.5 % in 591."""
_PACKED_SHARE = 0.9
"""Of a packed row's tokens that hold data; the rest is what no document fits into."""

_LOSS_CHUNK_BYTES = 512 << 20
"""For the logits of one chunk, which cost about 2 % of speed when a chunk is too small (facts of torchtune's ladder)
and 1.9 GiB at 1,024 targets of a vocabulary of 150,000."""
LEAST_LOSS_CHUNK = 64
_WARMUP_SHARE, _WARMUP_STEPS_LIMIT = 0.03, 2000
_RATE_DIVISORS: dict[Objective, int] = {"dpo": 40, "simpo": 40, "kto": 40, "orpo": 3}
"""Published recipes against the same authors' rate for imitating answers: Zephyr (alignment-handbook) 5e-7 against 2e-5
and, with QLoRA, 5e-6 against 2e-4; SimPO (arXiv 2405.14734) 3e-7 to 1e-6; KTO (arXiv 2402.01306) 5e-7. ORPO's loss
holds that of imitation itself and takes 5e-6 to 8e-6 (arXiv 2403.07691)."""
_MOST_EPOCHS: dict[Objective, float] = {"dpo": 2.0, "simpo": 1.0, "kto": 1.0, "orpo": 3.0}
"""Zephyr 1 to 2, SimPO and KTO 1, ORPO 3 (as above)."""
_LEAST_PAIRS = 64
"""embedding: pairs in a step, since each is told from the others in it; SimCSE (arXiv 2104.08821, table D.1) takes 64
where there are no given negatives."""
_MEASURED_ROWS, _LEAST_MEASURED_ROWS = 1000, 200
_ROUND_STEPS = (5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)


class Choice(NamedTuple):
    value: Any
    why: str


def sequence_length(longest: int, usual: int, context: int | None) -> Choice:
    """Longest row. `usual` is what 99 of 100 rows hold; both 0 when there are no data; `context` is the model's."""
    limit = context or _USUAL_LENGTH_LIMIT
    if not longest:
        length = min(limit, _LENGTH_WITHOUT_DATA)
        return Choice(length, "a usual length; give data to fit it to the longest row")
    wanted = longest if longest <= _USUAL_LENGTH_LIMIT else usual or longest
    length = min(limit, max(_LEAST_LENGTH, _round_up(wanted, _LENGTH_MULTIPLE)))
    if length >= longest:
        return Choice(length, f"holds the longest row, about {longest:,} tokens")
    why = "the model's context" if length == limit else "99 of 100 rows fit"
    return Choice(length, f"{why}; the longest row, about {longest:,} tokens, will be cut")


def rank(tokens: int) -> Choice:
    """Rank of the adapters for `tokens` of data an epoch (0: unknown)."""
    if not tokens:
        return Choice(16, "a usual rank; with data it follows their amount")
    value = 16 if tokens < 1_000_000 else 32 if tokens < 20_000_000 else 64
    return Choice(value, f"enough for about {tokens:,} tokens of data")


def alpha() -> Choice:
    """LoRA's best rate hardly depends on the rank while alpha stays 32 and the update is scaled by alpha / rank
    (Schulman et al., "LoRA Without Regret", Thinking Machines, 2025)."""
    return Choice(32.0, "keeps the best learning rate the same at every rank")


def learning_rate(method: Method, width: int, objective: Objective = "next_token") -> Choice:
    """The highest rate of the schedule for a model `width` wide.

    LoRA's best rate falls with the width, and tuning the weights themselves wants a tenth of it ("LoRA Without
    Regret", 2025, fitted on Llama models). Every optimizer takes the same: 8-bit states as 32-bit ones (Dettmers et
    al., arXiv 2110.02861), and Adafactor as it is built here, whose steps are AdamW's in size
    (engine.train.optimizer). Objectives that move a model away from an answer want far less (_RATE_DIVISORS).
    """
    rate = min(5e-3, 5e-4 * (2000 / width) ** 0.781)
    why = f"for a model {width:,} wide"
    if method in ("full", "partial"):
        rate, why = rate / 10, f"{why}, {method} tuning"
    if divisor := _RATE_DIVISORS.get(objective):
        rate, why = rate / divisor, f"{why}; {objective} takes about 1/{divisor} of what imitating answers does"
    return Choice(float(f"{rate:.1e}"), why)


def epochs(rows: int, objective: Objective = "next_token") -> Choice:
    """Passes over so many rows (0: unknown): a thousand examples are seen often (LIMA, arXiv 2305.11206, takes 15
    passes over 1,000), Alpaca's 52,000 three times, and beyond four repeats add little (arXiv 2305.16264)."""
    if not rows:
        return Choice(3.0, "a usual number; with data it follows the rows")
    value = 4.0 if rows < 2_000 else 3.0 if rows < 10_000 else 2.0 if rows < 50_000 else 1.0
    if (most := _MOST_EPOCHS.get(objective, value)) < value:
        return Choice(most, f"{objective} learns judgements by heart when they are repeated often")
    return Choice(value, f"for about {rows:,} rows")


def row_tokens(length: int, mean_tokens: float, packing: bool) -> float:
    """Tokens of data that one row of a micro-batch holds: nearly all of it when packed, one conversation when not."""
    if packing or not mean_tokens:
        return _PACKED_SHARE * length
    return max(1.0, min(mean_tokens, length))


def least_tokens_per_step(objective: Objective, rows: int, tokens: int) -> float:
    """Tokens that a step has to hold for the objective's sake, of data of so many rows and tokens an epoch."""
    if objective != "embedding" or not rows:
        return 0.0
    return min(_LEAST_PAIRS, rows) * tokens / rows


def rows_per_step(all_tokens: float, per_row: float, least_tokens: float = 0.0) -> int:
    """Rows that one optimizer step learns from: `all_tokens` (all epochs; 0: unknown) in about 500 steps, and at least
    `least_tokens` in one.

    The number is 2^a or 3 x 2^a, so that it can be halved into micro-batches again and again without changing. LoRA
    suffers from large batches more than full tuning does ("LoRA Without Regret"), hence the limit.
    """
    per_step = min(_TOKENS_PER_STEP_LIMIT, all_tokens / _WANTED_STEPS) if all_tokens else _TOKENS_PER_STEP_LIMIT
    wanted = max(1, round(max(per_step, least_tokens) / per_row))
    power = 1 << (wanted.bit_length() - 1)
    return min((power, power * 3 // 2 if power > 1 else 1, power * 2), key=lambda each: abs(each - wanted))


def loss_chunk(vocabulary: int) -> Choice:
    """Targets whose logits exist at once: three fp32 rows each (profiles.memory)."""
    chunk = 2 ** int(math.log2(min(1024, max(LEAST_LOSS_CHUNK, _LOSS_CHUNK_BYTES / (12 * vocabulary)))))
    return Choice(chunk, f"a vocabulary of {vocabulary:,} at that many targets")


def trained_layers(layers: int) -> Choice:
    """partial: a fourth of the layers, the last ones, reach 90 % of what all reach (Lee et al., "What Would Elsa
    Do?", arXiv 1911.03090)."""
    return Choice(max(1, math.ceil(layers / 4)), f"a fourth of {layers} layers reaches nine tenths of full tuning")


def warmup_share(steps: int) -> Choice:
    """Share of `steps` over which the rate rises: 3 %, as Alpaca and QLoRA (arXiv 2305.14314) take, and at most the
    2 / (1 - beta2) steps after which Adam's second moment has settled (Ma & Yarats, arXiv 1910.04209)."""
    if _WARMUP_SHARE * steps <= _WARMUP_STEPS_LIMIT:
        return Choice(_WARMUP_SHARE, "as Alpaca and QLoRA warm up")
    return Choice(
        round(_WARMUP_STEPS_LIMIT / steps, 5),
        f"{_WARMUP_STEPS_LIMIT:,} of {steps:,} steps settle the optimizer's averages",
    )


def held_out_share(rows: int) -> Choice:
    """Share of the training rows set aside to measure on, where no held-out file is given."""
    share = 0.1 if rows < 200 else min(0.05, 500 / rows)
    held = max(1, round(share * rows))
    return Choice(round(share, 4), f"about {held:,} rows to measure on")


def evaluation_every(steps: int) -> Choice:
    """`steps` are those of the whole run, 0 when they are not known."""
    if not steps:
        return Choice(50, "a usual number; with data it follows the steps")
    return Choice(_round_step(steps / 10), f"about ten times in some {steps:,} steps")


def evaluation_rows(rows: float) -> Choice:
    """Held-out rows that loss is measured on, in a run that learns from `rows` (all epochs; 0: unknown).

    A measurement costs a forward of each, a third of what learning from it does, and there are about a dozen
    (`evaluation_every`): a fortieth of the rows makes them a tenth of the run. A thousand tell a share to within 1.6
    points, and below two hundred two measurements differ by chance.
    """
    value = min(_MEASURED_ROWS, max(_LEAST_MEASURED_ROWS, round(rows / 40))) if rows else _MEASURED_ROWS
    why = (
        "a share is known to within 1.6 points"
        if value == _MEASURED_ROWS
        else "measuring takes about a tenth of the run"
    )
    return Choice(value, why if value > _LEAST_MEASURED_ROWS else "fewer would differ by chance")


def checkpoint_every(steps: int) -> Choice:
    """`steps` are those of the whole run, 0 when they are not known."""
    if not steps:
        return Choice(100, "a usual number; with data it follows the steps")
    return Choice(_round_step(steps / 5), "at most a fifth of the run is ever lost")


def answers(parameters: int, device: str) -> Choice:
    """Held-out rows answered before and after training."""
    if device == "cpu" and parameters > 200_000_000:
        return Choice(10, "few, since this model answers slowly on a CPU")
    return Choice(50, "enough to tell one percent from five")


def max_new_tokens(longest_answer: int) -> Choice:
    """Longest generated answer; `longest_answer` is the longest known, 0 for none."""
    if not longest_answer:
        return Choice(256, "room for a few paragraphs")
    value = min(1024, max(64, _round_up(2 * longest_answer, 64)))
    return Choice(value, "twice the longest of the first answers in the data")


def _round_up(value: float, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


def _round_step(steps: float) -> int:
    """The round number at or below `steps`, at least the smallest."""
    return max((each for each in _ROUND_STEPS if each <= steps), default=_ROUND_STEPS[0])
