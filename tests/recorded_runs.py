"""Runs with all their evidence: trained in this process, journalled and audited as an engine does it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from engine.run.creating import create_run
from engine.run.directory import RunDirectory, list_runs
from engine.run.processes.channel import MemoryChannel
from engine.run.telemetry.reading import open_journal
from engine.run.telemetry.recording import Recording

SEAL: dict[str, Any] = {
    "number": 1,
    "level": "best",
    "layers": [
        {"layer": "namespace", "held": True, "detail": {}, "why": "", "fix": "", "milliseconds": 1.0},
        {"layer": "landlock", "held": True, "detail": {}, "why": "", "fix": "", "milliseconds": 1.0},
        {"layer": "seccomp", "held": False, "detail": {}, "why": "the kernel has none", "fix": "", "milliseconds": 0.1},
    ],
    "milliseconds": 2.0,
    "probes": {"tried": 27, "refused": 27, "open": [], "hits": 0, "control": True, "seconds": 0.5},
    "evidence": {},
    "text": "sealed in part",
}


class _Journalling(MemoryChannel):
    """What the trainer tells goes into the run's journal at once."""

    def __init__(self, recording: Recording):
        super().__init__()
        self._recording = recording

    def send(self, kind: str, **fields: Any) -> None:
        self._recording.add(kind, **fields)


def train_recorded(model: Path, rows: Path, name: str = "test", **sections: dict[str, Any]) -> RunDirectory:
    """A run in FINETUI_HOME that learnt four steps and ended, saved twice."""
    import training

    from engine.run.evidence.lineage import write_lineage
    from engine.train.recipe import Recipe
    from engine.train.setup import build

    training.AcceleratorState._reset_state(reset_partial_state=True)
    steps = {"train": {"max_steps": 4}, "checkpoint": {"every_steps": 2}}
    spec = training.make_spec(model, rows, **{**steps, **sections}).model_copy(update={"name": name})
    run = create_run(spec)
    recording = Recording(run, open_journal(run)[0])
    recording.audit.started(False, [])
    recording.add("attempt", number=1, resumed_from=None, worker_pid=os.getpid(), adjusted={})
    recording.add("seal", **SEAL)
    setup = build(spec, lambda phase, detail, done, total: None, keep=run.data)
    recording.add("plan", **setup.plan_facts(), predicted={}, predicted_peak_bytes=1)
    write_lineage(run, {"data": setup.dataset.lineage()})
    Recipe(setup, run, _Journalling(recording)).train()
    recording.add("end", outcome="finished", cause="finished", why="", remedy="", step=4)
    recording.close()
    return run


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """FINETUI_HOME is `home` within the block."""
    with mock.patch.dict(os.environ, {"FINETUI_HOME": str(home)}):
        yield


def copy_home(home: Path, into: Path) -> RunDirectory:
    """The only run of a copy of `home`, hard links kept as such; FINETUI_HOME is to be the copy."""
    linked: dict[int, str] = {}

    def copy(source: str, target: str) -> str:
        number = Path(source).stat().st_ino
        if number in linked:
            os.link(linked[number], target)
        else:
            shutil.copy2(source, target)
            linked[number] = target
        return target

    shutil.copytree(home, into, copy_function=copy, dirs_exist_ok=True)
    with at_home(into):
        (run,) = list_runs()
    return run


def audit_of(run: RunDirectory) -> list[dict[str, Any]]:
    """The lines of its audit log as they stand there, but for one that is just being written."""
    return [json.loads(line) for line in (run.path / "audit.jsonl").read_bytes().split(b"\n")[:-1]]
