"""A run's two processes, supervisor and worker: how they are written down."""

from __future__ import annotations

import json

from engine.run.directory import RunDirectory
from engine.run.durable_files import write_atomically
from engine.run.processes.identity import ProcessIdentity
from engine.run.telemetry.records import from_line


def record_processes(run: RunDirectory, processes: dict[str, ProcessIdentity]) -> None:
    """Write pid.json. Raises OSError."""
    values = {name: identity.as_dict() for name, identity in processes.items()}
    write_atomically(run.pid_path, json.dumps(values).encode() + b"\n")


def recorded_processes(run: RunDirectory) -> dict[str, ProcessIdentity]:
    """The processes in pid.json ("supervisor", "worker"), alive or not; empty when it is not there, or is damaged."""
    try:
        values = from_line(run.pid_path.read_bytes())
    except OSError:
        return {}
    entries = values.items() if values is not None else ()
    return {name: identity for name, value in entries if (identity := ProcessIdentity.from_dict(value))}
