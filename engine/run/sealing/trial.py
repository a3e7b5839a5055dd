"""The trial of a seal, as the supervisor sees it: a child that prepares and tries, and that is waited for by a loop."""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from engine.child_process import describe_exit
from engine.modules import module_command, module_environment
from engine.run.directory import RunDirectory
from engine.run.endings.causes import Ending
from engine.run.sealing.refusing import ending_of_refusal, unsealed
from engine.run.telemetry.records import from_line
from engine.seal.group import GroupProcess
from engine.seal.policy.places import Places
from engine.seal.request import Level
from profiles.problem import Problem, printable

# What ended one child from outside may well spare the next; what ends three is no chance.
_MOST_CHILDREN = 3
# Asked to end, it ends what it has sealed, which is in groups of its own; that takes it milliseconds.
_ENDING_SECONDS = 1.0
# The kernel ends what was killed within milliseconds.
_KILLED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """How a worker is to be sealed, and what came of trying such a seal."""

    level: Level
    places: Places = field(default_factory=Places)
    probes: Mapping[str, Any] | None = None
    """The `probes` of a `seal` event; None where none were tried."""
    untried: str = ""
    """Why none were, as the end of a sentence."""

    def fault(self) -> str:
        """What keeps this seal from being one that holds, as far as the probes tell, as the end of a sentence; empty
        where nothing does."""
        probes = self.probes
        if probes is None:
            return f"was not tried ({self.untried})"
        if probes["hits"]:
            return f"was seen through: the listener outside was reached {probes['hits']:,} times"
        if probes["open"] or probes["refused"] < probes["tried"]:
            names = ", ".join(printable(each["name"], 60) for each in probes["open"][:5])
            return f"has ways out that are open: {names}"
        if not probes["control"]:
            return "could not be tried, since the listener outside was not reached from outside either"
        return "" if probes["tried"] else "was not tried: no probe ran"


class Trial:
    """One trial, of a seal at `level` for the worker of `run`."""

    def __init__(self, run: RunDirectory, level: Level):
        """Raises OSError where no process can be started."""
        self._run, self._level = run, level
        self._children = 0
        self._received = b""
        self._child = self._start()
        self.over = False
        """Whether `result` has something to tell."""

    def fileno(self) -> int:
        """Readable when `take` has something to do; another one once a child was started again."""
        assert self._child.stdout is not None
        return self._child.stdout.fileno()

    def take(self) -> None:
        """What the child said since, without waiting. Raises OSError."""
        assert self._child.stdout is not None
        with suppress(BlockingIOError):
            while data := os.read(self.fileno(), 1 << 16):
                self._received += data
            # Its end of the pipe is closed: it is ending.
            if b"\n" in self._received or self._children == _MOST_CHILDREN:
                self.over = True
                return
            self.close()
            self._received = b""
            self._child = self._start()

    def result(self) -> Prepared | Ending:
        """What was found; or how the run ends, where it cannot be sealed as it is to be."""
        record = from_line(self._received.partition(b"\n")[0])
        if record is None:
            self.close()
            how = describe_exit(self._child.returncode) if self._child.returncode is not None else "hangs"
            why = f"the seal could not be prepared: the process that does so {how}"
            return Ending("failed", "fault", why)
        if (refused := record.get("refused")) is not None:
            return ending_of_refusal(self._run, Problem(**refused))
        if (problem := record.get("problem")) is not None:
            return Ending("failed", "input", f"{problem['where']}: {problem['what']}", problem["fix"])
        places = Places(**{name: tuple(paths) for name, paths in record["places"].items()})
        prepared = Prepared(self._level, places, record["probes"], record["untried"])
        if self._level == "required" and (fault := prepared.fault()):
            return unsealed(self._run, f"the seal is required, and {fault}")
        return prepared

    def close(self) -> None:
        """End it, with all that it started."""
        if self._child.returncode is None:
            self._child.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(_ENDING_SECONDS)
        if self._child.returncode is None:
            self._child.kill()
            with suppress(subprocess.TimeoutExpired):  # it hangs in a driver: nobody waits for that
                self._child.wait(_KILLED_SECONDS)
        if self._child.stdout is not None:
            self._child.stdout.close()

    def _start(self) -> GroupProcess:
        self._children += 1
        child = GroupProcess(
            module_command("engine.run.sealing.trial_child", str(self._run.path), self._level, str(os.getpid())),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=module_environment(),
            cwd="/",
        )
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)
        return child


@contextmanager
def registered(selector: selectors.BaseSelector, trial: Trial) -> Iterator[None]:
    """Have `trial` heard by the supervisor's loop within the block, in which its child may become another."""
    descriptor = trial.fileno()
    selector.register(descriptor, selectors.EVENT_READ, trial.take)
    try:
        yield
    finally:
        selector.unregister(descriptor)
