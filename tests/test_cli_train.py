"""`finetui train` on a part of the rows, and on from there: nothing is started, only what would be is looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from command import Finetui

from engine.demo import MODEL_DIRECTORY, TRAIN_FILE

INPUTS = ("--model", MODEL_DIRECTORY, "--data", TRAIN_FILE)


def planned(finetui: Finetui, *arguments: object) -> dict[str, Any]:
    result = finetui("train", *arguments, "--dry-run", "--json")
    assert result.status == 0, result.stderr
    return result.json()


@pytest.fixture
def small_run(finetui: Finetui) -> Path:
    """A run of 200 rows, with a rank of its own, as far as its folder and its settings go."""
    spec = planned(finetui, *INPUTS, "--rows", 200, "--set", "method.rank=24", "--name", "trial")["spec"]
    folder = finetui.home / "runs" / "20260101T000000Z-trial"
    folder.mkdir(parents=True)
    without_nothing = json.loads(
        json.dumps(spec), object_hook=lambda table: {k: v for k, v in table.items() if v is not None}
    )
    (folder / "spec.toml").write_text(tomli_w.dumps(without_nothing))
    return folder


def test_some_rows_are_planned_for_as_some_rows(finetui: Finetui):
    some, everything = planned(finetui, *INPUTS, "--rows", 200), planned(finetui, *INPUTS)
    assert (some["spec"]["data"]["rows"], everything["spec"]["data"]["rows"]) == (200, None)
    assert some["spec"]["evaluation"]["every_steps"] < everything["spec"]["evaluation"]["every_steps"]
    assert "200 rows" in some["reasons"]["train.epochs"]
    assert planned(finetui, *INPUTS, "--set", "data.rows=200")["spec"] == some["spec"]


def test_a_run_goes_on_with_all_rows(finetui: Finetui, small_run: Path):
    everything = planned(finetui, *INPUTS, "--set", "method.rank=24", "--name", "trial")["spec"]
    for named in ("trial", small_run.name, small_run):
        grown = planned(finetui, named, "--rows", "all")
        assert grown["spec"]["data"]["rows"] is None
        # What was chosen stays, and what follows from the number of rows follows.
        assert grown["spec"]["method"]["rank"] == 24
        for section in ("train", "schedule", "evaluation", "checkpoint"):
            assert grown["spec"][section] == everything[section]
        assert small_run.name in grown["reasons"]["data.rows"]
    more = planned(finetui, "trial", "--rows", 500, "--set", "train.epochs=2", "--name", "more")["spec"]
    assert (more["data"]["rows"], more["train"]["epochs"], more["name"]) == (500, 2.0, "more")
    again = planned(finetui, "trial", "--set", "train.seed=3")["spec"]
    assert (again["data"]["rows"], again["train"]["seed"]) == (200, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*INPUTS, "--rows", "0"), "--rows 0: is no number of rows"),
        ((*INPUTS, "--rows", "some"), "--rows some: is no number of rows"),
        (("nobody", "--rows", "all"), "run nobody: there is no such run"),
        (("nothing.toml", "--rows", "all"), "nothing.toml: there is no such file"),
    ],
)
def test_what_is_no_number_of_rows_and_no_run_is_told(finetui: Finetui, arguments: tuple[object, ...], said: str):
    result = finetui("train", *arguments)
    assert result.status == 2
    assert said in result.stderr
