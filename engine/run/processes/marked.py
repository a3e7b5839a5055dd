"""Which processes of this user belong to which run, by the mark that an engine leaves in what it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.run.directory import RunDirectory
from engine.run.processes.identity import ProcessIdentity

RUN_VARIABLE = "FINETUI_RUN"
"""The environment variable by which all that an engine starts is known to belong to the run in that folder."""


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """A process of this user, with the words of its command and the run's folder that it is marked with, if any."""

    identity: ProcessIdentity
    command: tuple[bytes, ...]
    run_path: Path | None

    def belongs_to(self, run: RunDirectory) -> bool:
        """Whether an engine of `run` started it."""
        return self.run_path is not None and self.run_path.resolve() == run.path.resolve()


def mark_as_of(run: RunDirectory) -> None:
    """What this process starts from now on belongs to `run`. (This process itself is not marked.)"""
    os.environ[RUN_VARIABLE] = str(run.path)


def leads_session(pid: int) -> bool:
    """As a trainer does, and what it starts does not."""
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def own_processes() -> Iterator[SeenProcess]:
    """All other processes of this user that let themselves be read: some milliseconds on a usual machine."""
    user, prefix = os.getuid(), f"{RUN_VARIABLE}=".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if entry.stat().st_uid != user:
                continue
            # First, so that a number which passes on to another process meanwhile is not taken for what was read.
            identity = ProcessIdentity.of(int(entry.name))
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended, or keeps its secrets
            continue
        marks = [each[len(prefix) :] for each in environment if each.startswith(prefix)]
        yield SeenProcess(identity, tuple(command[:-1]), Path(os.fsdecode(marks[0])) if marks else None)
