"""What a benchmark file asks, whatever its shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.data.contents import Unusable
from engine.data.files import open_rows
from engine.data.quality.texts import question
from engine.data.rows import RejectedRow
from engine.data.shapes.recogniser import Recogniser
from engine.data.source import Source

# A choice of answers is found everywhere; what is asked has more words.
_FEWEST_CHARACTERS = 20


def benchmark_texts(path: Path | Source) -> tuple[list[str], list[int]]:
    """What each row of a benchmark asks, and the number of each row. Raises Problem for a file that cannot be read.

    A row of a shape that finetui does not know counts with all its longer texts.
    """
    source = path if isinstance(path, Source) else Source(path)
    texts, numbers = [], []
    recogniser = Recogniser(source)
    with open_rows(source) as reader:
        for row in reader:
            if isinstance(row, RejectedRow):
                continue
            try:
                text = question(recogniser.recognise(row.value).content)
            except Unusable:
                text = "\n".join(_texts(row.value))
            texts.append(text)
            numbers.append(row.line)
    return texts, numbers


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if len(value) >= _FEWEST_CHARACTERS else []
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _texts(each)]
    return [text for each in value for text in _texts(each)] if isinstance(value, list) else []
