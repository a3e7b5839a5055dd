"""The level of the seal as commands take and tell it, with real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Finetui

from engine.demo import MODEL_DIRECTORY, TRAIN_FILE

ALL = ("--model", MODEL_DIRECTORY, "--data", TRAIN_FILE, "--name", "clinic")


@pytest.fixture
def cli(tmp_path: Path) -> Finetui:
    return Finetui(tmp_path / "home")


def test_the_level_that_is_given_is_what_the_run_is_asked_for(cli: Finetui) -> None:
    for given, asked in (((), "best"), (("--seal", "off"), "off")):
        assert cli("train", *ALL, *given, "--dry-run", "--json").json()["spec"]["privacy"]["seal"] == asked


def test_what_is_required_and_missing_is_told_before_anything_is_trained(cli: Finetui) -> None:
    without = cli.with_environment(FINETUI_SEAL_WITHOUT="namespace")
    for waiting in ("--wait", "--queue"):
        refused = without("train", *ALL, "--seal", "required", waiting)
        assert refused.status == 2 and "does not hold here: no namespace (" in refused.stderr
        assert "--seal best" in refused.stderr
    assert cli("runs", "--json").json() == []
