"""A row as tokens, before it is cut to a length: what is prepared once and kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.data.contents import Role

# Reasons to look at a row that is used all the same: one sentence each for all rows, so that they can be counted.
HOLDS_SPECIAL = "text holds special tokens of the model, which are learnt as such and not as text"
HOLDS_UNKNOWN = "more than 1 % of the tokens are unknown to the tokenizer"
LEAVES_OUT_TOOLS = "the chat template leaves out a tool call or the tools on offer"


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One sequence of tokens."""

    ids: NDArray[np.int32]
    answers: tuple[tuple[int, int], ...]
    """Where each answer that may be learnt begins and ends among the ids, its stop token included, in order."""
    prompt_tokens: int
    """Tokens before the last answer that may be learnt: what the model is given to write it. All, without answers."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class Tokenised:
    """What became of one content."""

    sequences: tuple[Encoded, ...]
    """One; of a preference the chosen and the rejected conversation; of similar texts the anchor, the positive and the
    negatives."""
    windows: bool = False
    """Plain text: where it is longer than a sequence may be, it is learnt in several parts."""
    labels: tuple[str, ...] = ()
    """The classes of a labelled text; "liked" or "disliked" of feedback."""
    altered: tuple[Role, ...] = ()
    """Roles of messages whose text the chat template left out or changed."""
    warnings: tuple[str, ...] = ()
    """Of those above."""
