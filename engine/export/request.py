"""Exporting a run from a process that never imports torch: a child does it, and its progress is told here."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any, Literal

from engine.child_process import describe_exit, last_line
from engine.export.copying import Progress
from engine.export.output import output_of
from engine.export.staging import check_target, sweep
from engine.modules import module_command, module_environment
from engine.run.directory import RunDirectory
from profiles.problem import Problem

Form = Literal["adapter", "merged"]

# It hears a SIGTERM only between two calls into a library, and one of those may write for minutes.
TERMINATE_SECONDS = 5.0


def export_run(run: RunDirectory, to: Form, into: Path, progress: Progress = lambda detail, done, total: None) -> Path:
    """Write the adapter of `run`, or its model merged with the base, into the folder `into`; returns it,
    absolute.

    `progress` gets what is being done in words and, where that can be said, the bytes done of how many (else
    0 of 0). At the end the folder is there whole, or, whatever happened, as it was before. Raises Problem:
    the run has no result, the folder is not empty or cannot be written, base or adapter cannot be read, the
    child was killed.
    """
    output_of(run)
    target = check_target(into)
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            module_command("engine.export", str(run.path), "--to", to, "--into", str(target)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=module_environment(),
            start_new_session=True,
            encoding="ascii",
        )
        try:
            return _follow(child, target, log, progress)
        finally:
            # Also on Ctrl+C here: its own session keeps the child from hearing that itself.
            child.terminate()
            try:
                child.wait(TERMINATE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            sweep(target)


def _follow(child: subprocess.Popen[str], target: Path, log: IO[bytes], progress: Progress) -> Path:
    assert child.stdout is not None
    with child.stdout as lines:
        for line in lines:
            message: dict[str, Any] = json.loads(line) if line.endswith("\n") else {"kind": "cut"}
            match message["kind"]:
                case "progress":
                    progress(message["detail"], message["done"], message["total"])
                case "problem":
                    raise Problem(message["where"], message["what"], message["fix"])
                case "finished":
                    return Path(message["path"])
    what = f"its process {describe_exit(child.wait())}"
    if words := last_line(log):
        what += f"; its last words: {words}"
    raise Problem(f"the export to {target}", what, "Nothing was written there. Free memory or disk, and try again.")
