"""A person's home folder of a test's own, in which finetui keeps its runs."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.run.directory import RunDirectory
from engine.run.processes.marked import own_processes
from engine.run.processes.recorded import recorded_processes


@contextmanager
def made_up_home(monkeypatch: pytest.MonkeyPatch, within: Path) -> Iterator[Path]:
    """Below `within`, and not where pytest has its own, which lie in /tmp: that is another one within a seal. What runs
    in it still is killed at the end of the block, and once that has ended all of it goes."""
    path = Path(tempfile.mkdtemp(prefix=".finetui-test-home-", dir=within))
    for name, folder in {"HOME": "", "FINETUI_HOME": "finetui", "XDG_CACHE_HOME": ".cache"}.items():
        monkeypatch.setenv(name, str(path / folder))
    try:
        yield path
    finally:
        for run in (path / "finetui" / "runs").glob("*"):
            _end(RunDirectory(run))
        shutil.rmtree(path)


def _end(run: RunDirectory) -> None:
    for process in [
        *recorded_processes(run).values(),
        *(each.identity for each in own_processes() if each.belongs_to(run)),
    ]:
        process.send(signal.SIGKILL)
        assert process.wait(60), "a killed process goes on, and would write into what is removed"
