"""Damages the newest checkpoint of a killed run, goes on with it, and compares the end with an undisturbed one.

python checkpoints_under_damage.py FOLDER EVERY, started with the library of system_calls.c: of all damages every
EVERY-th is tried. What came of each is a line of JSON. Each attempt is a forked process, so that the libraries are
loaded once; they are real runs, but without a supervisor.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import system_calls
import torch
from runs_under_faults import Runs, end_of
from saves_under_faults import KILLED, in_a_child
from training import train

from engine.run.creating import create_run
from engine.run.directory import RunDirectory

OLDER, NEWEST, UNFINISHED = "step-000002", "step-000004", ".staging-000005"


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def damages(checkpoint: Path) -> Iterator[tuple[str, str, Callable[[Path], None]]]:
    """Of each file of a checkpoint: what is done to it, in a word and in full, and the doing."""
    for file in sorted(checkpoint.iterdir()):
        size = file.stat().st_size
        for place in (0, size // 2, size - 1):
            yield "flipped bit", f"byte {place} of {file.name}", lambda path, place=place: flip(path, place)
        for left in (0, size // 2, size - 1):
            yield "short file", f"{left} bytes of {file.name}", lambda path, left=left: cut(path, left)
        yield "missing file", file.name, Path.unlink


class DamagedRuns(Runs):
    """Copies of one run that was killed while it saved for the third time."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        log = folder / "log"
        self.alone, self.killed = create_run(self.spec), create_run(self.spec)
        self._train(self.alone, log_to=log)
        self.whole = end_of(self.alone)
        calls = system_calls.logged(log)
        at = next(number for number, call in enumerate(calls, 1) if UNFINISHED in call[1])
        assert self._train(self.killed, at) == KILLED
        assert {NEWEST, OLDER} <= {path.name for path in self.killed.checkpoints.iterdir()}

    def _train(self, run: RunDirectory, at: int = 0, log_to: Path | None = None, told_to: Path | None = None) -> str:
        """Train from where the run stands, killed at the `at`-th call in the folder of checkpoints; how it ended. What
        it noted is written to `told_to`."""
        counter = self.folder / "calls"
        counter.unlink(missing_ok=True)
        variables = system_calls.environment(run.checkpoints, at, count_to=counter, log_to=log_to)

        def armed() -> None:
            system_calls.arm_this_process(variables)
            _, events = train(self.spec, run)
            if told_to is not None:
                told_to.write_text("\n".join(each["text"] for each in events if each["kind"] == "note"))

        ended, told = in_a_child(armed)
        assert not told, told
        return ended

    def trial(self, kind: str, name: str, damage: Callable[[Path], None]) -> dict[str, object]:
        """What becomes of a run whose newest checkpoint met with this."""
        run = create_run(self.spec)
        shutil.copytree(self.killed.checkpoints, run.checkpoints)
        file = run.checkpoints / NEWEST / name.split()[-1]
        damage(file)
        left = file.read_bytes() if file.exists() else None
        told = self.folder / "told"
        self._train(run, told_to=told)
        # A good checkpoint of that step took its place; the damaged one is kept beside it.
        (apart,) = run.checkpoints.glob(".damaged-000004-*")
        kept = apart / file.name
        return {
            "kind": kind,
            "what": name,
            "file": file.name,
            "exact": end_of(run) == self.whole,
            "kept": (kept.read_bytes() if kept.exists() else None) == left,
            "told": told.read_text().splitlines(),
        }


def main(folder: Path, every: int) -> None:
    torch.set_num_threads(1)
    runs = DamagedRuns(folder)
    for kind, name, damage in list(damages(runs.killed.checkpoints / NEWEST))[::every]:
        print(json.dumps(runs.trial(kind, name, damage)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
