"""Which language a text is in: a guess from its beginning, and "unknown" where it is too short or too mixed to tell."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

UNKNOWN = "unknown"

# A language is mostly clear by then; each character takes most of a microsecond.
_CHARACTERS = 200
# Fewer letters than this are often the same in several languages.
_FEWEST_LETTERS = 16
_LEAST_CONFIDENCE = 0.5


def language_of(text: str) -> str:
    """The language's English name where it is a common one, else its ISO 639 code; UNKNOWN."""
    start = text[:_CHARACTERS]
    if sum(map(str.isalpha, start)) < _FEWEST_LETTERS:
        return UNKNOWN
    code, confidence = _identifier().classify(start)
    if confidence < _LEAST_CONFIDENCE or code in ("zxx", "und"):
        return UNKNOWN
    return _names().get(code, code)


@cache
def _names() -> dict[str, str]:
    lines = files("engine.data.quality").joinpath("languages.csv").read_text(encoding="utf-8").splitlines()
    return {code: name for code, _, name in (line.partition(",") for line in lines[1:])}


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # half a second: only where languages are asked for

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
