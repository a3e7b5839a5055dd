"""The sample file of every shape and format is prepared, and each of its rows is accounted for."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import pytest
from chat_families import tokenizer_of

from engine.data.prepare.preparing import prepare
from engine.data.tokens.reference import describe
from engine.data.tokens.templates import choose_template
from engine.data.tokens.text_tokenizer import TextTokenizer
from engine.spec import DataSection

SAMPLES = Path(__file__).parent.parent / "samples"
TOLD = tomllib.loads((SAMPLES / "samples.toml").read_text())


@cache
def tokenizer() -> TextTokenizer:
    description = describe(tokenizer_of("chatml"))
    known = choose_template("chatml", description, "chatml")  # which writes tool calls too
    return TextTokenizer("chatml", description, template_name=known.name, chat_template=known.template)


@pytest.mark.parametrize("name", TOLD)
def test_every_sample_is_prepared_whole(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    told = TOLD[name]
    source = {"path": str(SAMPLES / name), **told.get("source", {})}
    spec = DataSection(train=(source,), sequence_length=512, held_out_share=0.1)
    data = prepare(spec, tokenizer(), workers=0)
    (report,) = data.sources
    assert report.rows == told["rows"] == report.trained + report.held_out + report.set_aside
    assert data.kind == told["kind"] and report.set_aside <= report.rows // 100
    assert len(data.held_out) >= 1 and len({each.row for each in data.train}) == report.trained
    learns_from_tokens = data.kind not in ("labelled", "similar")
    assert (data.target_tokens > 0) == learns_from_tokens == any(each.trained.any() for each in data.train)
    assert all(len(each) == length for each, length in zip(data.train, data.train.lengths, strict=True))
