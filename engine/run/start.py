"""What an engine is told when it is started: the options of the supervisor's command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.seal.request import LEVELS, Level


@dataclass(frozen=True, slots=True)
class Start:
    """How a run is to be started."""

    resume: bool = False
    """Go on with a run that was started before."""
    queue: bool = False
    """Begin once the run's memory is free, and its turn has come."""
    anyway: bool = False
    """Go on though data, settings, versions or base weights are not those of the checkpoint."""
    learning_rate: float | None = None
    """The highest rate of the schedule from now on, where that is not the spec's."""
    after: str | None = None
    """The name of a run that is to end first, however it ends; only with `queue`."""
    beside: bool = False
    """Begin once the run's memory is free, though other runs of finetui are on its device; only with `queue`."""
    seal: Level | None = None
    """The seal's level from now on, where that is not the spec's."""

    def arguments(self) -> list[str]:
        """The options of the command line that say this."""
        given = ["--resume"] * self.resume + ["--queue"] * self.queue + ["--anyway"] * self.anyway
        given += ["--beside"] * self.beside
        if self.learning_rate is not None:
            given += ["--learning-rate", repr(self.learning_rate)]
        if self.seal is not None:
            given += ["--seal", self.seal]
        return given if self.after is None else [*given, "--after", self.after]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> tuple[Path, Start]:
        """The run's folder and how it is to be started, from a command line that launch wrote."""
        parser = argparse.ArgumentParser(prog="engine.run.supervisor", allow_abbrev=False)
        parser.add_argument("path", type=Path)
        for name in ("--resume", "--queue", "--anyway", "--beside"):
            parser.add_argument(name, action="store_true")
        parser.add_argument("--learning-rate", type=float)
        parser.add_argument("--seal", choices=LEVELS)
        parser.add_argument("--after")
        values = vars(parser.parse_args(arguments))
        return values.pop("path").absolute(), cls(**values)
