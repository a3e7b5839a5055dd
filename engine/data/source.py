"""Where rows come from and how they are to be read: one file, folder or stream of a person's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Format = Literal["auto", "jsonl", "json", "csv", "parquet", "arrow", "text", "markdown"]
Shape = Literal["auto", "messages", "pair", "text", "preference", "feedback", "labelled", "similar", "template"]

READER = "the process that reads the data"
"""How any that reads rows, or a tokenizer for them, is called where it tried to get out of its seal."""


@dataclass(frozen=True, slots=True)
class Source:
    """What "auto" stands for is found out from the file itself; everything else was said by a person."""

    path: Path
    format: Format = "auto"
    encoding: str = "auto"
    """A codec that Python knows, such as "cp1252"."""
    delimiter: str = "auto"
    """csv: the character between two fields."""
    records: str = ""
    """json: where in a nested document the list of rows stands, such as "data.items"; "" finds it."""
    shape: Shape = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Which column plays which part, by part: {"question": "ask", "answer": "reply"}."""
    prompt_template: str = ""
    """shape "template": Jinja that makes the prompt from a row's columns; "" learns all of the answer's text."""
    answer_template: str = ""
    """shape "template": Jinja that makes the answer (or, without a prompt, the text)."""

    @property
    def is_plain(self) -> bool:
        """Whether only the path was given."""
        return self == Source(self.path)
