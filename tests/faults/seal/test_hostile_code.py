"""What hostile data, model folders and libraries do within the worker of a real run, under its real supervisor.

The run without a seal shows that each of these attacks works; the one with a seal, that none does.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_ledger import Ledger
from private_network import environment_for, run_in_private_network

# Those that end at the listener; the others read or write files, or the environment.
_LOCAL = {
    *("keys and tokens in the home folder", "tokens in the environment", "another run's folder"),
    "a line in what runs at the next log-in",
}


@pytest.fixture
def home() -> Iterator[Path]:
    """A made-up home folder with keys in it."""
    path = Path(tempfile.mkdtemp(prefix="finetui-test-home-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path)


def hostile_run(home: Path, level: str) -> dict[str, Any]:
    (home / "work").mkdir()
    command = ["-m", "hostile_run", level, str(home / "work")]
    told: dict[str, Any] = json.loads(run_in_private_network(command, environment_for(home)))
    assert told["end"][0] == "finished", told["log"]
    assert told["control"]
    return told


def test_without_a_seal_every_attack_gets_through(home: Path) -> None:
    told = hostile_run(home, "off")

    tried = {name: answer for name, answer in told["attacks"].items() if not answer.startswith("absent")}
    assert {name: answer for name, answer in tried.items() if not answer.startswith("out: ")} == {}
    # What comes as somebody else's protocol does not say who it is.
    assert told["hits"] + told["strays"] >= len(tried) - len(_LOCAL)
    assert told["bashrc"].startswith("# hostile")
    assert not told["ways_out"]


def test_sealed_no_attack_gets_anything_and_the_run_tells_of_them(home: Path, ledger: Ledger) -> None:
    told = hostile_run(home, "best")

    held = [layer["layer"] for layer in told["seal"]["layers"] if layer["held"]]
    missing = {layer["layer"]: layer["why"] for layer in told["seal"]["layers"] if not layer["held"]}
    if missing:
        pytest.skip(f"this machine has not got every layer: {missing}")
    assert held == ["namespace", "landlock", "seccomp"]
    guarded = told["attacks"].pop("guarded")
    for name, answer in told["attacks"].items():
        if not answer.startswith("absent"):
            ledger.injected(f"way out tried: {name}")
            if not answer.startswith("refused: "):
                ledger.lost(f"way out tried: {name}")
    got_out = {name: answer for name, answer in told["attacks"].items() if answer.startswith("out: ")}
    assert (got_out, told["hits"], told["strays"]) == ({}, 0, 0)
    assert told["bashrc"] == "a secret of a made-up person\n"
    # The kernel counted what went beneath the guard, and the guard named the line.
    tries = {each["what"]: each for each in told["ways_out"]}
    assert any(what.startswith("socket(AF_INET, SOCK_STREAM") for what in tries)
    named = [each["where"] for each in told["ways_out"] if each["where"]]
    assert named and all("hostile_worker.py:" in where for where in named)
    assert "look-up of 192.0.2.1" in guarded
