"""Tokenizers that were made to take all memory or time: tried by a process that is limited, before others read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from engine.data.crew import run_crew
from engine.data.files import Chunk, chunks_of
from engine.data.prepare.chunk_work import TASK, ChunkWork
from engine.data.prepare.recipe import Recipe
from engine.data.shapes import Reading
from engine.data.source import Source
from engine.data.tokens.loading import load_text_tokenizer, vet_tokenizer
from engine.methods.loading import load_tokenizer
from profiles.problem import Problem

Spoil = Callable[[dict[str, Any]], None]
TENFOLD = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
FRAME = {"Sequence": {"id": "A", "type_id": 0}}
MARK = {"SpecialToken": {"id": "x", "type_id": 0}}


def put(**parts: Any) -> Spoil:
    return lambda tokenizer: tokenizer.update(parts)


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "Sequence", "pretokenizers": []}
    for _ in range(depth):
        inner = {"type": "Sequence", "pretokenizers": [inner]}
    return inner


UNREADABLE: dict[str, tuple[Spoil, str]] = {
    "memory by one letter": (
        put(normalizer={"type": "Sequence", "normalizers": [TENFOLD] * 10}),
        "cannot be read: memory allocation of",
    ),
    "memory by its frame": (
        put(
            post_processor={
                "type": "TemplateProcessing",
                "single": [*[MARK] * 10_000, FRAME],
                "pair": [],
                "special_tokens": {"x": {"id": "x", "ids": [0] * 100_000, "tokens": ["a"] * 100_000}},
            }
        ),
        "cannot be read: ",
    ),
    "nested deeply": (put(pre_tokenizer=nested(300)), "recursion limit exceeded"),
    "a regular expression of brackets": (
        put(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(" * 9999 + ")" * 9999}, "behavior": "Isolated",
                           "invert": False}),
        "parse depth limit over",
    ),
    "an unknown kind": (put(model={"type": "../../evil"}), "tokenizer"),
    "a number as vocabulary": (put(model={"type": "BPE", "vocab": 10**30, "merges": []}), "tokenizer"),
}  # fmt: skip


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "good")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))


def spoilt(good: Path, folder: Path, spoil: Spoil) -> Path:
    folder.mkdir()
    for path in good.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    spoil(values)
    path.write_text(json.dumps(values))
    return folder


# Where memory runs out each reader takes seconds to get there: one of the two ways stands for both.
SLOW = {"memory by its frame"}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else []) for case in UNREADABLE]
)
def test_it_is_refused_by_every_reader_before_that_reads_it(good: Path, tmp_path: Path, case: str):
    spoil, expected = UNREADABLE[case]
    folder = spoilt(good, tmp_path / "model", spoil)
    for read in (vet_tokenizer, load_tokenizer, load_text_tokenizer):
        with pytest.raises(Problem) as refused:
            read(folder)
        assert expected in str(refused.value) and str(folder) in refused.value.where, read


def test_a_good_one_is_read_by_all(good: Path):
    vet_tokenizer(good)
    assert load_text_tokenizer(good).ids(["the"]) == [load_tokenizer(good)("the")["input_ids"]]


def test_a_padding_of_a_terabyte_is_not_made(good: Path, tmp_path: Path):
    padding = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
               "pad_type_id": 0, "pad_token": "a"}  # fmt: skip
    folder = spoilt(good, tmp_path / "model", put(padding=padding))
    assert load_text_tokenizer(folder).ids(["the"]) == load_text_tokenizer(good).ids(["the"])


def test_a_regular_expression_without_end_is_told(good: Path, tmp_path: Path):
    """One that only some text sets off: found by the processes that tokenise, not by whoever reads the tokenizer."""
    split = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated", "invert": False}
    folder = spoilt(good, tmp_path / "model", put(pre_tokenizer=split))
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"text": "a" * 200 + "!"}) + "\n")
    source = Source(data)
    recipe = Recipe(
        source, Reading("text", "text", {"text": "text"}), load_text_tokenizer(folder), None, None, 0, 0.0, "leave", "",
        False, None, "",
    )  # fmt: skip
    with chunks_of(source, 1 << 20) as chunks:
        work = [ChunkWork(0, chunk, tmp_path / f"{chunk.ordinal}") for chunk in chunks if isinstance(chunk, Chunk)]
    with pytest.raises(Problem, match="the tokenizer: has a regular expression that takes too long for the data"):
        list(run_crew(TASK, (recipe,), work, 1))
