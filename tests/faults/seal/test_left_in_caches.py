"""What a hostile process left in the caches that it may write, for those who are not sealed: it is passed over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data.tokens import loading
from engine.fit import memory_rows


def deep(path: Path) -> None:
    path.write_text('{"a":' + "[" * 200_000 + "]" * 200_000 + "}\n")


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.fixture(params=[os.mkfifo, endless, deep], ids=["a pipe", "a link to a device", "lists in lists"])
def leave(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))

    def left(path: Path) -> None:
        path.parent.mkdir(parents=True)
        request.param(path)

    return left


def test_measured_rows_that_are_none_are_passed_over(leave: Callable[[Path], None]) -> None:
    measured = memory_rows.measured_folder()
    leave(measured / "a-device.jsonl")
    (measured / "b-device.jsonl").write_text('{"outcome": "ok"}\n')
    assert list(memory_rows.read_rows()) == [{"outcome": "ok"}]


def test_a_kept_tokenizer_that_is_none_is_asked_for_anew(leave: Callable[[Path], None], tmp_path: Path) -> None:
    class Asked(Exception):
        pass

    def ask(model: Path) -> dict[str, Any]:
        raise Asked

    model = tmp_path / "model"
    model.mkdir()
    leave(loading._kept(model))
    with pytest.raises(Asked):
        loading._described(model, ask)
