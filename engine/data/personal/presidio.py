"""What Microsoft's Presidio finds beside us, where it and a spaCy model of it are installed (pip install
presidio-analyzer, then a model such as en_core_web_sm). Nothing is downloaded: without a model it is left out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from engine.data.personal.finder import Finder
from engine.data.personal.found import Personal, PersonalType

# Best first.
_MODELS = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm")
# Only what needs a language model; numbers and addresses we find ourselves, and places alone are not personal.
_KINDS: dict[str, PersonalType] = {"PERSON": "name"}
_LEAST_SCORE = 0.6
_MOST_CHARACTERS = 100_000  # spaCy takes some gigabytes for a million


def presidio_finders() -> tuple[Finder, ...]:
    """One finder, or none where Presidio cannot work."""
    analyzer = _analyzer()
    if analyzer is None:
        return ()

    def find(text: str) -> Iterator[Personal]:
        found = analyzer.analyze(text=text[:_MOST_CHARACTERS], language="en", entities=list(_KINDS))
        for each in found:
            if each.score >= _LEAST_SCORE:
                yield Personal(each.start, each.end, _KINDS[each.entity_type])

    return (find,)


def presidio_state() -> str:
    """By what names are found, as the end of a sentence."""
    return "by word lists and by Presidio" if _model() else "by word lists (presidio-analyzer would find more)"


def _model() -> str | None:
    if find_spec("presidio_analyzer") is None or find_spec("spacy") is None:
        return None
    return next((name for name in _MODELS if find_spec(name) is not None), None)


@cache
def _analyzer() -> Any:
    model = _model()
    if model is None:
        return None
    presidio = import_module("presidio_analyzer")

    settings = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
    engine = import_module("presidio_analyzer.nlp_engine").NlpEngineProvider(nlp_configuration=settings).create_engine()
    return presidio.AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])
