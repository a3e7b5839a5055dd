"""A row as the model will learn it, token by token: values only, so that a screen can have them without a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

TrainOn = Literal["answers", "last_answer", "everything"]


@dataclass(frozen=True, slots=True)
class XRayToken:
    id: int
    text: str
    """How it reads; together the tokens read as the row. Parts of a character are written as \\xE2."""
    trained: bool = False
    """It is a target: the model learns to write it after what stands before. Never so beyond a cut."""
    special: bool = False
    stop: bool = False
    """It ends an answer."""
    cut: bool = False
    """It lies beyond the sequence length and is left out."""
    answer: int | None = None
    """Which answer of the row it belongs to, from 0."""


@dataclass(frozen=True, slots=True)
class XRay:
    """One sequence: the row, or a part of it that goes through the model by itself."""

    name: str
    """"" where a row is one sequence; else "chosen", "rejected", "anchor", "positive", "negative 1"."""
    tokens: tuple[XRayToken, ...]
    notes: tuple[str, ...]
    """What a person should know of this row, one sentence each."""
    counts: Mapping[str, int]
    """Tokens: "tokens" in all, "learnt", "masked" (read and not learnt), "cut", and "special", "answers" among them;
    learnt + masked + cut make up all."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "counts": dict(self.counts),
            "notes": list(self.notes),
            "tokens": [asdict(token) for token in self.tokens],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> XRay:
        tokens = tuple(XRayToken(**token) for token in values["tokens"])
        return cls(values["name"], tokens, tuple(values["notes"]), dict(values["counts"]))
