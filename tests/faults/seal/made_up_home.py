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
from engine.run.processes.recorded import recorded_processes


@contextmanager
def made_up_home(monkeypatch: pytest.MonkeyPatch, within: Path) -> Iterator[Path]:
    """Below `within`, and not where pytest has its own, which lie in /tmp: that is another one within a seal. What runs
    in it still is killed at the end of the block, and all of it goes."""
    path = Path(tempfile.mkdtemp(prefix=".finetui-test-home-", dir=within))
    for name, folder in {"HOME": "", "FINETUI_HOME": "finetui", "XDG_CACHE_HOME": ".cache"}.items():
        monkeypatch.setenv(name, str(path / folder))
    try:
        yield path
    finally:
        for run in (path / "finetui" / "runs").glob("*"):
            for process in recorded_processes(RunDirectory(run)).values():
                process.send(signal.SIGKILL)
        shutil.rmtree(path)
