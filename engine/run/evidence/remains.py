"""Runs by what is left of them: for looking at and removing one that is damaged."""

from __future__ import annotations

import os
from pathlib import Path

from engine.run.directory import RunDirectory, find_run, runs_root
from engine.run.evidence.audit import audit_path
from profiles.problem import Problem


def find_remains(text: str) -> RunDirectory:
    """As `find_run`; also a run's folder whose spec.toml is gone, by its whole name or path. Raises Problem."""
    try:
        return find_run(text)
    except Problem:
        path = Path(text).expanduser() if os.sep in text else runs_root() / text
        run = RunDirectory(path.absolute())
        names = (run.events_path, run.lineage_path, run.environment_path, audit_path(run))
        if not text or text in (".", "..") or not any(name.is_file() for name in names):
            raise
        return RunDirectory(path.resolve())
