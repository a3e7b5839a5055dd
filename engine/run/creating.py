"""Making a run: its folder, with what was asked, on what machine, and the first entry of its audit log."""

from __future__ import annotations

import calendar
import hashlib
import json
import platform
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from engine.run.directory import FOLDER_NAME, RunDirectory, disk_problem, runs_root
from engine.run.durable_files import write_atomically
from engine.run.environment import describe_environment
from engine.run.evidence.audit import record
from engine.run.evidence.heads import drop_head
from engine.run.private import private_folder
from profiles.problem import Problem, printable

if TYPE_CHECKING:
    from engine.spec import RunSpec

_STAMP = "%Y%m%dT%H%M%SZ"
_LAST_MOMENT = calendar.timegm((9999, 1, 1, 0, 0, 0))


def create_run(spec: RunSpec) -> RunDirectory:
    """Make a run's folder, with spec.toml and environment.json in it. Raises Problem when the disk does not let us, or
    the folder of runs is not ours."""
    root = runs_root()
    try:
        str(root).encode()
    except UnicodeEncodeError:
        # What writes tokenizers takes no other name, and would tell it when the training is done.
        fix = "Set FINETUI_HOME to a folder whose whole name is UTF-8."
        raise Problem(printable(root, 500), "is not UTF-8, so a tokenizer cannot be written there", fix) from None
    folder = None
    try:
        private_folder(root)
        folder = _new_folder(root, spec.name)
        run = RunDirectory(folder)
        environment = json.dumps(describe_environment(), indent=1).encode() + b"\n"
        asked = spec.to_toml().encode()
        write_atomically(run.environment_path, environment)
        hashes = {"spec_sha256": asked, "environment_sha256": environment}
        known = {name: hashlib.sha256(text).hexdigest() for name, text in hashes.items()}
        record(run, "created", **known, host=platform.node())
        # Last, since a folder with a spec.toml is what counts as a run.
        write_atomically(run.spec_path, asked)
    except OSError as error:
        if folder is not None:
            drop_head(RunDirectory(folder))
            shutil.rmtree(folder, ignore_errors=True)
        raise disk_problem(root, error) from None
    return run


def _new_folder(root: Path, name: str) -> Path:
    moment = max(int(time.time()), _newest_moment(root) + 1)
    while True:
        folder = root / f"{time.strftime(_STAMP, time.gmtime(moment))}-{name}"
        try:
            folder.mkdir(mode=0o700)
            return folder
        except FileExistsError:
            moment += 1  # made by another process at this very moment


def _newest_moment(root: Path) -> int:
    """When the newest folder of a run in `root` says that it was made, in unix seconds; 0 where there is none.

    It may lie ahead of a clock that was set back. The next run's folder then takes the second after it, since what is
    "latest" is found by these names."""
    stamps = (match["stamp"] for entry in root.iterdir() if (match := FOLDER_NAME.fullmatch(entry.name)))
    for stamp in sorted(stamps, reverse=True):
        # What no calendar has was named by hand, and the calendar's last year is no place to go on from.
        with suppress(ValueError):
            moment = calendar.timegm(time.strptime(stamp, _STAMP))
            if moment < _LAST_MOMENT:
                return moment
    return 0
