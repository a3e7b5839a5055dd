"""What it takes to find the words of a text that a tokenizer works on one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class WordRule:
    words: str
    """Regular expression whose matches, one behind the other, are the words."""
    foreign: str
    """Regular expression that finds something in text for which this is not sure."""
    spelled: Callable[[str], str]
    """A word as the tokenizer's model takes it."""
    trial: str
    """Text that shows whether the rule is the tokenizer's."""
    apart: str = r"(?!)"
    """Regular expression that matches at places in text which no token reaches across; usually at none."""
    before: str = ""
    """What the tokenizer puts before text, and behind each added token."""


def state_of(component: Any) -> dict[str, Any]:
    """What a part of a tokenizer is made of."""
    return json.loads(component.__getstate__())
