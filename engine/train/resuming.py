"""Going on from a checkpoint under the circumstances that it was made under, and not under others unasked."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import torch

from engine.objectives.references import REFERENCES_NAME
from engine.run.checkpoints.manifest import list_checkpoints, saved_circumstances, step_of
from engine.run.circumstances import (
    BaseReading,
    goes_on_anyway,
    needs_new_data,
    require_same,
    require_same_settings,
)
from engine.run.circumstances.checking import Send
from engine.run.directory import RunDirectory
from engine.spec import RunSpec
from engine.train.setup import THREADS, PhaseReport, Setup


def begin_resume(run: RunDirectory, asked: RunSpec, base: BaseReading, report: PhaseReport) -> bool:
    """Before anything is prepared, compare what is known by then with the run's newest checkpoint. Whether the data has
    to be prepared anew, since a person said to go on with settings or a tokenizer that make other tokens of it. Raises
    ChangedSince for changes that nobody said to go on with."""
    reading = partial(report, "preparing", "comparing settings, libraries and the base's files with the checkpoint's")
    if list_checkpoints(run.checkpoints):
        reading(0, 0)
    changed = require_same_settings(run, asked, partial(base.result, reading))
    if any(change.field.startswith("base") for change in changed):
        # What the other base made of the rows.
        (run.evaluation / REFERENCES_NAME).unlink(missing_ok=True)
    return any(needs_new_data(change.field) for change in changed)


def check_checkpoint(setup: Setup, run: RunDirectory, path: Path, send: Send) -> None:
    """Compare all that decides what is learnt with what the checkpoint in `path` was made with, and journal what a
    person said to go on with. Raises ChangedSince for changes that nobody did."""
    saved = saved_circumstances(path)
    threads = saved.get(THREADS, "")
    is_other = setup.device.type == "cpu" and threads.isdecimal() and int(threads) != torch.get_num_threads()
    if is_other and not goes_on_anyway():  # whoever goes on anyway has the machine's own
        torch.set_num_threads(int(threads))
        count = f"{threads} thread{'s' * (threads != '1')}"
        text = f"computes with {count} as before the checkpoint, since others round their sums otherwise"
        processors = len(os.sched_getaffinity(0))
        if int(threads) > processors:
            text += f"; this machine has {processors} processors, and `finetui resume {run.name} --anyway` uses as many"
        send("note", text=text)
    require_same(run, step_of(path) or 0, saved, setup.circumstances(), send)
