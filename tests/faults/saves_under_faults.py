"""Saves checkpoints that are killed or refused at one system call after another, and looks at what is left each time.

python saves_under_faults.py FOLDER EVERY, started with the library of system_calls.c: every EVERY-th call is tried. It
prints lines of JSON: the calls of a save that nothing disturbs, then what came of each trial (see `Outcome`). Each save
is a forked process of its own, so that torch is loaded once.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import system_calls
import torch

from engine.run.checkpoints.manifest import list_checkpoints, saved_circumstances, step_of
from engine.run.checkpoints.verifying import damage, newest_checkpoint
from engine.train.checkpoints import Progress, load_checkpoint, save_checkpoint
from profiles.problem import Problem

# What is there before each save: the best, which is the oldest; one that has to go; and what an earlier kill left.
BEST, BEFORE, SAVED, NEXT = 1, (1, 2, 3), 4, 5
KEEP = 2
LEFTOVERS = (".staging-000002.1", ".removing-step-000001")
KILLED, REFUSED = "killed", "refused"


@dataclass(frozen=True)
class Outcome:
    """What is left of a save in which the call number `at` met with `act`."""

    act: str
    at: int
    call: str
    """Its name and the path within the folder; what was called before it where the save took another way."""
    ended: str
    """killed, refused (told as a Problem) or saved."""
    told: str
    good: list[int]
    """The steps of the checkpoints that are whole, oldest first."""
    newest: int | None
    exact: bool
    """Whether the newest loads: every tensor, the optimizer's and the random states as they were saved."""
    after_next: list[str]
    """All that is in the folder once the next save was done."""
    next_exact: bool


def state_of(step: int) -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
    """Parameters and an optimizer that know by their values to which step they belong; generators, too."""
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(step)
    parameters = {name: torch.nn.Parameter(torch.randn(5, 3) + step) for name in ("a", "b")}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1, fused=True)
    sum((parameter**2).sum() for parameter in parameters.values()).backward()
    optimizer.step()
    return parameters, optimizer


def drawn() -> list[float]:
    """What the generators give next."""
    return [float(torch.rand(())), random.random(), float(np.random.random())]


def save(root: Path, step: int) -> None:
    progress = Progress(step, 10 * step, 0.5, BEST)
    save_checkpoint(root, progress, *state_of(step), keep=KEEP, circumstances={"rate": "0.1"})


def loads_exactly(path: Path | None) -> bool:
    if path is None:
        return False
    step = step_of(path)
    assert step is not None
    wanted, wanted_optimizer = state_of(step)
    wanted_drawn = drawn()
    parameters, optimizer = state_of(99)
    progress = load_checkpoint(path, parameters, optimizer)
    same = progress.step == step and drawn() == wanted_drawn and saved_circumstances(path) == {"rate": "0.1"}
    for name, parameter in parameters.items():
        there, here = wanted_optimizer.state[wanted[name]], optimizer.state[parameter]
        same &= torch.equal(parameter, wanted[name]) and there.keys() == here.keys()
        same &= all(torch.equal(here[key], there[key]) for key in there)
    return same


def in_a_child(action: Any) -> tuple[str, str]:
    """How `action` ended in a process of its own, and what it told."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        told = ""
        try:
            action()
        except Problem as problem:
            told = f"{problem.what}. {problem.fix}"
        except BaseException as error:
            told = f"FAULT {error!r}"
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return KILLED, told
    return (REFUSED, told) if told else ("saved", told)


class Trials:
    """Saves under faults, each in a copy of the same folder."""

    def __init__(self, folder: Path):
        self.folder, self.template = folder, folder / "template"
        self.root, self.counter, self.log = folder / "checkpoints", folder / "calls", folder / "log"
        for step in BEFORE:
            in_a_child(lambda step=step: save(self.template, step))
        for name in LEFTOVERS:
            (self.template / name).mkdir()
            (self.template / name / "trainable.safetensors").write_bytes(b"half")

    def undisturbed(self, *, reads: bool) -> list[tuple[str, str, str]]:
        """The calls of a save that nothing disturbs: name, path within the folder and another."""
        self._save_with(0, "kill", reads=reads)
        return self._calls()

    def outcome(self, at: int, act: Any, *, reads: bool = False, times: int = 1) -> Outcome:
        ended, told = self._save_with(at, act, reads=reads, times=times)
        calls = self._calls()
        good = [step_of(path) for path in list_checkpoints(self.root) if damage(path) is None]
        newest, _ = newest_checkpoint(self.root)
        exact = loads_exactly(newest)
        in_a_child(lambda: save(self.root, NEXT))
        left = sorted(path.name for path in self.root.iterdir())
        name = act if isinstance(act, str) else errno.errorcode[act] + ("" if times else " from then on")
        call = " ".join(calls[min(at, len(calls)) - 1][:2])
        step = None if newest is None else step_of(newest)
        return Outcome(
            name, at, call, ended, told, good, step, exact, left, loads_exactly(newest_checkpoint(self.root)[0])
        )

    def _save_with(self, at: int, act: Any, *, reads: bool, times: int = 1) -> tuple[str, str]:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.template, self.root)
        for path in (self.counter, self.log):
            path.unlink(missing_ok=True)
        variables = system_calls.environment(
            self.root, at, act, count_to=self.counter, times=times, reads=reads, log_to=self.log
        )

        def armed_save() -> None:
            newest_checkpoint(self.root)  # as a run that goes on does; it also knows then which ones are good
            system_calls.arm_this_process(variables)
            save(self.root, SAVED)

        return in_a_child(armed_save)

    def _calls(self) -> list[tuple[str, str, str]]:
        def within(path: str) -> str:
            return os.path.relpath(path, self.root) if path else ""

        return [(name, within(path), within(other)) for name, path, other in system_calls.logged(self.log)]


def outcomes(trials: Trials, every: int) -> Iterator[Outcome]:
    writing, all_calls = trials.undisturbed(reads=False), trials.undisturbed(reads=True)
    for at in range(1, len(writing) + 1, every):
        yield trials.outcome(at, "kill")
        if writing[at - 1][0] == "write":
            yield trials.outcome(at, "kill in the middle")
        yield trials.outcome(at, errno.ENOSPC)
        yield trials.outcome(at, errno.ENOSPC, times=0)
    for at in range(1, len(all_calls) + 1, every):
        yield trials.outcome(at, errno.EIO, reads=True)


def main(folder: Path, every: int) -> None:
    torch.set_num_threads(1)
    trials = Trials(folder)
    print(json.dumps(trials.undisturbed(reads=False)))
    for outcome in outcomes(trials, every):
        print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
