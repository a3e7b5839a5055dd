"""Trains a run whose files may only be so large (RLIMIT_FSIZE), limit after limit, and looks at what becomes of it.

python limits_under_faults.py FOLDER EVERY: the limit is one byte less than each size of a file that an undisturbed run
writes, of which every EVERY-th is tried. A write is taken in part, and the next one refused. What came of each is a
line of JSON. Each attempt is the real worker in a forked process.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from disks_under_faults import ending_of, in_a_worker
from runs_under_faults import a_spec, end_of

import engine.train.disk_wait
from engine.run.creating import create_run
from engine.run.directory import RunDirectory


def attempt(run: RunDirectory, largest_bytes: int = resource.RLIM_INFINITY) -> dict[str, Any]:
    """How a worker that trains `run` ends where no file may grow beyond `largest_bytes`."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, resource.RLIM_INFINITY))

    status, told = in_a_worker(run, limit)
    return {"limit": largest_bytes, "status": status, **ending_of(told)}


def main(folder: Path, every: int) -> None:
    torch.set_num_threads(1)
    engine.train.disk_wait.ROOM_INTERVAL_SECONDS = engine.train.disk_wait.REFUSED_INTERVAL_SECONDS = 0.01
    os.environ["FINETUI_HOME"] = str(home := folder / "home")
    spec = a_spec(folder)
    alone = create_run(spec)
    undisturbed = attempt(alone)
    assert undisturbed["outcome"] == "finished", undisturbed
    sizes = sorted({path.stat().st_size for path in home.rglob("*") if path.is_file()} - {0})
    for size in sizes[::-every]:
        run = create_run(spec)
        # What an earlier run prepared is not to be found, so that its writing is tried as well.
        for kept in home.glob("*/"):
            if kept.name != "runs":
                kept.rename(folder / f"old-{size}-{kept.name}")
        first = attempt(run, size - 1)
        if first["outcome"] != "finished":
            attempt(run)
        print(json.dumps(first | {"exact": end_of(run) == end_of(alone)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
