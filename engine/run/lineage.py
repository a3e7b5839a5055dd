"""lineage.json: where all that a run learnt from came from, by section, each written whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.durable_files import write_atomically


def write_lineage(run: RunDirectory, sections: Mapping[str, Any]) -> None:
    """Put `sections` (JSON types) into the run's lineage.json; others that are there stay. Raises OSError."""
    written = {**read_lineage(run), **sections}
    write_atomically(run.lineage_path, json.dumps(written, indent=1, ensure_ascii=False).encode() + b"\n")


def read_lineage(run: RunDirectory) -> dict[str, Any]:
    """The sections by name ("data"); none for a run whose data was not prepared yet."""
    try:
        values = json.loads(run.lineage_path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
