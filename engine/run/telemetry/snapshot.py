"""The fold of a long journal's beginning, kept beside it so that it need not be read again. Derived, and dispensable:
a snapshot that is missing, damaged, of another version or not of this journal is passed over.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import astuple, fields, replace
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.durable_files import write_atomically
from engine.run.telemetry.checksum import checksum_holds, with_checksum
from engine.run.telemetry.events import FORMAT_VERSION, Evaluation, RunState, Sample, StepPoint
from engine.run.telemetry.journal import parse_event

_LINE_BYTES = 1 << 20


def save_snapshot(run: RunDirectory, state: RunState, recent: deque[tuple[float, float]], offset: int) -> None:
    """Keep `state`, the fold of the first `offset` bytes, with the pace's last steps. Raises OSError."""
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    for name in ("steps", "evaluations", "samples"):
        values[name] = [astuple(each) for each in values[name]]
    record = {"v": FORMAT_VERSION, "offset": offset, "recent": list(recent), "state": values}
    line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
    write_atomically(run.snapshot_path, with_checksum(line))


def load_snapshot(run: RunDirectory) -> tuple[RunState, list[tuple[float, float]], int] | None:
    """What `save_snapshot` kept, if it can be used for the journal as it is. Raises OSError for an unreadable one."""
    try:
        line = run.snapshot_path.read_bytes()
        if not checksum_holds(line[:-1]):
            return None
        record = json.loads(line)
        if record["v"] != FORMAT_VERSION or record["state"].keys() != {field.name for field in fields(RunState)}:
            return None
        values: dict[str, Any] = record["state"]
        for name, kind in (("steps", StepPoint), ("evaluations", Evaluation), ("samples", Sample)):
            values[name] = tuple(kind(*each) for each in values[name])
        values["evaluations"] = tuple(
            replace(each, source_losses=tuple(each.source_losses)) for each in values["evaluations"]
        )
        for name in ("notes", "ladder", "restarts", "continued", "source_losses", "ways_out", "seal_changed"):
            values[name] = tuple(values[name])
        state, offset = RunState(**values), int(record["offset"])
        recent = [(float(tokens), float(seconds)) for tokens, seconds in record["recent"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (state, recent, offset) if _ends_with(run, offset, state.seq) else None


def _ends_with(run: RunDirectory, offset: int, sequence: int) -> bool:
    """Whether the journal has a line that ends at `offset` and is event `sequence`."""
    try:
        with run.events_path.open("rb") as journal:
            start = journal.seek(max(0, offset - _LINE_BYTES))
            before = journal.read(offset - start)
    except FileNotFoundError:
        return False
    line = before[:-1].rpartition(b"\n")[2]
    event = parse_event(line) if len(before) == offset - start and before.endswith(b"\n") else None
    return event is not None and event["seq"] == sequence
