"""Trains a run that is killed inside a save, goes on with it, and compares the end with one that was left alone.

python runs_under_faults.py FOLDER KILLS, started with the library of system_calls.c: KILLS runs, each killed at another
call, as far apart as can be. What came of each is a line of JSON. Each attempt is a forked process, so that the
libraries are loaded once; they are real runs, but without a supervisor.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import system_calls
import tiny
import torch
from saves_under_faults import KILLED, in_a_child
from training import make_spec, train, write_chats

from engine.run.checkpoints.manifest import STATE, list_checkpoints
from engine.run.creating import create_run
from engine.run.directory import RunDirectory
from engine.spec import RunSpec

STEPS, SAVE_EVERY = 5, 2


def a_spec(folder: Path) -> RunSpec:
    """Dropout, packing, accumulation, a best checkpoint: all whose state a resume must get right."""
    held_out = write_chats(folder / "held-out.jsonl", 4, seed=9)
    return make_spec(
        tiny.make_model(folder / "model"),
        write_chats(folder / "chats.jsonl", 40),
        held_out,
        method={"dropout": 0.1},
        train={"max_steps": STEPS, "gradient_accumulation": 2, "micro_batch": 2, "probe": False},
        checkpoint={"every_steps": SAVE_EVERY, "keep": 2},
    )


def end_of(run: RunDirectory) -> dict[str, str]:
    """The sums of what a finished run learnt, and what it knows of itself."""
    newest = list_checkpoints(run.checkpoints)[-1]
    files = [newest / STATE, *sorted(newest.glob("*.safetensors"))]
    outputs = sorted(run.outputs.rglob("*.safetensors"))  # an adapter, or a model
    assert outputs
    files += outputs
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {"step": newest.name} | sums


class Runs:
    """Runs of one spec in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        os.environ["FINETUI_HOME"] = str(folder / "home")
        self.spec = a_spec(folder)

    def attempt(self, run: RunDirectory, at: int = 0) -> tuple[str, int]:
        """Train from where the run stands, killed at the `at`-th call in the folder of checkpoints. How it ended, and
        how many such calls there were."""
        counter = self.folder / "calls"
        counter.unlink(missing_ok=True)
        variables = system_calls.environment(run.checkpoints, at, count_to=counter)

        def armed() -> None:
            system_calls.arm_this_process(variables)
            train(self.spec, run)

        ended, told = in_a_child(armed)
        assert not told, told
        return ended, system_calls.count_of(counter)


def main(folder: Path, kills: int) -> None:
    torch.set_num_threads(1)
    runs = Runs(folder)
    alone = create_run(runs.spec)
    _, calls = runs.attempt(alone)
    for number in range(kills):
        at = 1 + number * (calls - 1) // max(1, kills - 1)
        run = create_run(runs.spec)
        ended, _ = runs.attempt(run, at)
        assert ended == KILLED, ended
        runs.attempt(run)
        print(json.dumps({"at": at, "exact": end_of(run) == end_of(alone)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
