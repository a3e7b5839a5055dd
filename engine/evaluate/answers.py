"""Answers of a model to held-out prompts: greedy, batched, compared with what was expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.data.examples import Example
from engine.run.durable_files import write_atomically
from profiles.ladder import USUAL_ANSWER_BATCH, usual_answer_batch


@torch.no_grad()
def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[NDArray[np.int32]],
    *,
    batch: int = USUAL_ANSWER_BATCH,
    token_budget: int = 0,
    max_new_tokens: int,
    stop_tokens: Sequence[int],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """The model's greedy answer to each prompt (token ids), in order, without special tokens.

    At most `batch` rows are answered at once, and fewer where their tokens, answers included, would be more than
    `token_budget` (or ANSWER_TOKENS). The model must be set to an attention that reads masks; `stop_tokens` are token
    ids that end an answer. Prompts that leave no room in the context are answered "".
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    fitting = [index for index, ids in enumerate(prompts) if 0 < len(ids) < context]
    answers = [""] * len(prompts)
    # Similar lengths together: least padding.
    fitting.sort(key=lambda index: len(prompts[index]))
    start = 0
    try:
        while start < len(fitting):
            chosen = fitting[start : start + batch]
            while len(chosen) > usual_answer_batch(token_budget, len(prompts[chosen[-1]]) + max_new_tokens):
                chosen.pop()
            start += len(chosen)
            width = len(prompts[chosen[-1]])
            ids = torch.full((len(chosen), width), tokenizer.pad_token_id)
            mask = torch.zeros((len(chosen), width), dtype=torch.long)
            for row, index in enumerate(chosen):
                ids[row, width - len(prompts[index]) :] = torch.from_numpy(prompts[index])
                mask[row, width - len(prompts[index]) :] = 1
            output = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=min(max_new_tokens, context - width),
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=list(stop_tokens) or None,
            )
            for index, row in zip(chosen, output[:, width:], strict=True):
                answers[index] = tokenizer.decode(row, skip_special_tokens=True)
            progress(start, len(fitting))
    finally:
        model.train(was_training)
    return answers


def find_stop_tokens(model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[int]:
    """Token ids that end an answer: the generation settings', the tokenizer's, and what the training rows end with.

    The last matters for base models whose end-of-text token is not the end-of-turn token of their chat template.
    """
    configured = model.generation_config.eos_token_id
    ids = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id}
    for example in examples[:1]:
        last = int(example.input_ids[np.flatnonzero(example.trained)[-1]])
        if last in tokenizer.all_special_ids or last in tokenizer.added_tokens_decoder:
            ids.add(last)
    return sorted(token for token in ids if token is not None)


def exact_match(answers: Sequence[str], expected: Sequence[str]) -> float | None:
    """Share of answers that equal what was expected, outer white space aside; None when there are none."""
    if not expected:
        return None
    hits = sum(answer.strip() == wanted.strip() for answer, wanted in zip(answers, expected, strict=True))
    return hits / len(expected)


def write_answers(path: Path, answers: Sequence[str]) -> None:
    """Keep `answers`, one JSON string a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(answer) + "\n" for answer in answers).encode())


def read_answers(path: Path) -> list[str] | None:
    """Answers written earlier; None when there are none."""
    if not path.is_file():
        return None
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
