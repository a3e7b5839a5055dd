"""What a quality report is asked to look at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MISSING = "(missing)"
"""What a row counts as that has no such column."""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    rows: int | None = None
    """Look at this many rows only, the first of each source in equal parts; None looks at all."""
    attributes: tuple[str, ...] = ()
    """Columns whose balance is told: where the rows come from, whom they are about."""
    sequence_length: int = 1024
    """With a model, rows longer than this many tokens are told as cut."""
    model: Path | None = None
    """A model's folder, whose tokenizer and chat template lengths are measured with; None counts characters."""
    chat_template: str = "model"
    near_duplicates: bool = True
    languages: bool = True
    personal: bool = True
    workers: int | None = None
    """Processes; None takes one for each core, and one for data that is read in a moment."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, the way to a child process."""
        return {**asdict(self), "model": None if self.model is None else str(self.model)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> ReportOptions:
        model = value["model"]
        return cls(**{**value, "attributes": tuple(value["attributes"]), "model": Path(model) if model else None})
