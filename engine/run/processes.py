"""A run's two processes, supervisor and worker: how they are written down, and the environment they start in."""

from __future__ import annotations

import json
import os
from pathlib import Path

from engine.run.directory import RunDirectory, write_atomically
from engine.run.identity import ProcessIdentity


def record_processes(run: RunDirectory, processes: dict[str, ProcessIdentity]) -> None:
    """Write pid.json. Raises OSError."""
    values = {name: identity.as_dict() for name, identity in processes.items()}
    write_atomically(run.pid_path, json.dumps(values).encode() + b"\n")


def recorded_processes(run: RunDirectory) -> dict[str, ProcessIdentity]:
    """The processes in pid.json ("supervisor", "worker"), alive or not; empty when there is no such file."""
    try:
        values = json.loads(run.pid_path.read_bytes())
    except (OSError, ValueError):
        return {}
    entries = values.items() if isinstance(values, dict) else ()
    return {name: identity for name, value in entries if (identity := ProcessIdentity.from_dict(value))}


def module_environment() -> dict[str, str]:
    """This process's environment, made so that `python -P -m engine...` finds the very code that runs here."""
    environment = dict(os.environ)
    root = Path(__file__).resolve().parents[2]
    # An installed package is found anyway, and site-packages in PYTHONPATH would come before the standard library.
    if not {"site-packages", "dist-packages"} & set(root.parts):
        known = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(root), *known]))
    return environment
