"""Presidio takes part where it and a model of it are installed, and never downloads one."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from engine.data.personal import presidio
from engine.data.personal.finder import find_personal
from engine.data.personal.redaction import Redactor


@pytest.fixture
def installed(monkeypatch):
    """A stand-in for the package, and the names of what counts as installed beside it."""
    presidio._analyzer.cache_clear()
    names = {"presidio_analyzer", "spacy"}
    real = presidio.find_spec
    monkeypatch.setattr(presidio, "find_spec", lambda name: ModuleSpec(name, None) if name in names else None)
    assert real("sys") is not None

    def analyze(text, language, entities):
        start = text.find("Xanthippe")
        return [SimpleNamespace(start=start, end=start + 9, entity_type="PERSON", score=0.85)] if start >= 0 else []

    package, engines = ModuleType("presidio_analyzer"), ModuleType("presidio_analyzer.nlp_engine")
    package.AnalyzerEngine = lambda **_: SimpleNamespace(analyze=analyze)
    engines.NlpEngineProvider = lambda nlp_configuration: SimpleNamespace(create_engine=lambda: nlp_configuration)
    monkeypatch.setitem(sys.modules, "presidio_analyzer", package)
    monkeypatch.setitem(sys.modules, "presidio_analyzer.nlp_engine", engines)
    yield names
    presidio._analyzer.cache_clear()


def test_without_a_model_it_is_left_out(installed):
    assert presidio.presidio_finders() == ()


def test_with_a_model_its_names_are_added_to_ours(installed):
    installed.add("en_core_web_sm")
    text = "Xanthippe met Anna Schmidt."

    found = find_personal(text, presidio.presidio_finders())

    assert [text[each.start : each.end] for each in found] == ["Xanthippe", "Anna Schmidt"]
    assert "by Presidio" in presidio.presidio_state()
    assert Redactor("mask").text(text)[0] == "[NAME] met [NAME]."
