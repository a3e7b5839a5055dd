"""What was handed out of a run's folder, in its audit log and its lineage. No torch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.evidence.audit import record, seal_facts
from engine.run.evidence.lineage import change_lineage
from engine.seal.report import SealReport
from profiles.problem import Problem


def record_export(
    run: RunDirectory,
    to: str,
    target: Path,
    files: Mapping[str, Any],
    seal: SealReport | None,
    ways_out: Mapping[str, Any],
    *,
    with_sources: bool,
) -> None:
    """Write down that `files` (size and SHA-256 by name) were written into the folder `target`, by a process that was
    sealed so and tried these ways out (Hearing.facts). Raises Problem where that cannot be written: the export is there
    all the same."""
    own = run.path.resolve()
    # Within the run's folder by its place there, so that a copy of that says the same.
    place = target.relative_to(own) if target.is_relative_to(own) else target
    told = {"to": to, "path": str(place), "with_sources": with_sources, "files": dict(files)}
    try:
        record(run, "exported", **told, seal=seal_facts(seal) if seal is not None else None, ways_out=ways_out)
        change_lineage(run, lambda before: {"exports": [*(before.get("exports") or ()), {"at": time.time(), **told}]})
    except OSError as error:
        raise Problem(
            str(run.path),
            f"the export is written to {target}, but not into the run's audit log ({error.strerror or error})",
            "Free some space there and export it again, or keep it without that evidence.",
        ) from None
