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
from engine.export.recording import record_export
from engine.export.staging import check_target, delivered
from engine.modules import module_command
from engine.run.directory import RunDirectory
from engine.run.private import users_umask
from engine.seal.policy.places import export_places
from engine.seal.sealing import start_sealed
from profiles.problem import Problem

Form = Literal["adapter", "merged"]

# It hears a SIGTERM only between two calls into a library, and one of those may write for minutes.
TERMINATE_SECONDS = 5.0


def export_run(
    run: RunDirectory,
    to: Form,
    into: Path,
    progress: Progress = lambda detail, done, total: None,
    *,
    with_sources: bool = False,
) -> Path:
    """Write the adapter of `run`, or its model merged with the base, into the folder `into`; returns it,
    absolute. Its card names the run, the data's files and their hashes only `with_sources`. What went where is recorded
    in the run's audit log and lineage.

    `progress` gets what is being done in words and, where that can be said, the bytes done of how many (else
    0 of 0). At the end the folder is there whole, or, whatever happened, as it was before. Raises Problem:
    the run has no result, the folder is not empty or cannot be written, base or adapter cannot be read, the
    child was killed; and where the export is there, but could not be recorded.
    """
    output_of(run)
    target = check_target(into)
    with tempfile.TemporaryFile() as log, delivered(target) as made:
        child, report = start_sealed(
            module_command("engine.export", *_arguments(run, to, made, with_sources)),
            export_places(run, made.parent),
            run.spec().privacy.seal,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            umask=users_umask(),
            encoding="ascii",
        )
        try:
            files = _follow(child, made, target, log, progress)
        finally:
            # Also on Ctrl+C here: its own session keeps the child from hearing that itself.
            child.terminate()
            try:
                child.wait(TERMINATE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    record_export(run, to, target, files, report, with_sources=with_sources)
    return target


def _arguments(run: RunDirectory, to: Form, target: Path, with_sources: bool) -> list[str]:
    return [str(run.path), "--to", to, "--into", str(target), *["--with-sources"] * with_sources]


def _follow(
    child: subprocess.Popen[str], made: Path, target: Path, log: IO[bytes], progress: Progress
) -> dict[str, Any]:
    """Size and SHA-256 of each file, once all are in `made`. Raises Problem, about `target` where that is meant."""
    assert child.stdout is not None
    with child.stdout as lines:
        for line in lines:
            message: dict[str, Any] = json.loads(line) if line.endswith("\n") else {"kind": "cut"}
            match message["kind"]:
                case "progress":
                    progress(message["detail"], message["done"], message["total"])
                case "problem":
                    where = message["where"].replace(str(made.parent), str(target.parent))
                    raise Problem(where, message["what"], message["fix"])
                case "finished":
                    return message["files"]
    what = f"its process {describe_exit(child.wait())}"
    if words := last_line(log):
        what += f"; its last words: {words}"
    raise Problem(f"the export to {target}", what, "Nothing was written there. Free memory or disk, and try again.")
