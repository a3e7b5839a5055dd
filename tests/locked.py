"""Another process that has a run's lock, as an engine has: a lock is a process's own, and tells it nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from engine.run.directory import RunDirectory

_HOLD = "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); print(flush=True); input()"


@contextmanager
def held(run: RunDirectory) -> Iterator[None]:
    """The run is live within the block."""
    command = [sys.executable, "-c", _HOLD, str(run.lock_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        try:
            yield
        finally:
            process.communicate(b"\n")
