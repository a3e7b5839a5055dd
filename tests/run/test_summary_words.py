"""A run's line names its files, however they are written in its spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.run.creating import create_run
from engine.run.summary import summarise
from engine.spec import parse_spec


def test_files_with_weights_and_columns_are_named_as_plain_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    train = ["/d/a.jsonl", {"path": "/d/b.csv", "weight": 2.0, "shape": "pair", "columns": {"question": "q"}}]
    values = {"name": "n", "model": {"path": "/m"}, "data": {"train": train}, "objective": {"kind": "dpo"}}
    found = summarise(create_run(parse_spec(values, "test")))
    assert (found.data, found.objective) == ("a.jsonl, b.csv", "dpo")
