"""Exporting a run from a process that never imports torch: a child does it, and its progress is told here."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Literal

from engine.child_process import describe_exit, last_line
from engine.export.copying import Progress, files_in, total_bytes
from engine.export.output import Output, output_of
from engine.export.recording import record_export
from engine.export.staging import check_target, delivered
from engine.modules import module_command
from engine.run.directory import RunDirectory
from engine.run.private import users_umask
from engine.run.sealing.hearing import Hearing
from engine.run.sealing.level import level_now
from engine.run.sealing.places import export_places
from engine.run.telemetry.records import from_line
from engine.seal.group import GroupProcess
from profiles.machine.kernel import require_kernel
from profiles.problem import Problem, printable

Form = Literal["adapter", "merged"]

# It hears a SIGTERM only between two calls into a library, and one of those may write for minutes.
TERMINATE_SECONDS = 5.0
_MESSAGE_BYTES = 1 << 16
# A tokenizer and a card.
_EXTRAS_BYTES = 1 << 30


def export_run(
    run: RunDirectory,
    to: Form,
    into: Path,
    progress: Progress = lambda detail, done, total: None,
    warn: Callable[[str], None] = lambda text: None,
    *,
    with_sources: bool = False,
) -> Path:
    """Write the adapter of `run`, or its model merged with the base, into the folder `into`; returns it,
    absolute. Its card names the run, the data's files and their hashes only `with_sources`. What went where is recorded
    in the run's audit log and lineage.

    `progress` gets what is being done in words and, where that can be said, the bytes done of how many (else
    0 of 0); `warn` what tried to get out of the child's seal, as a sentence. At the end the folder is there whole, or,
    whatever happened, as it was before. Raises Problem: the run has no result, the folder is not empty or cannot be
    written, base or adapter cannot be read, the child was killed; and where the export is there, but could not be
    recorded.
    """
    require_kernel()
    output = output_of(run)
    target = check_target(into)
    most_bytes = _most_bytes(run, output)
    with tempfile.TemporaryFile() as log, delivered(target) as delivery, closing(Hearing()) as hearing:
        made = delivery.made
        child, report = hearing.start(
            module_command("engine.export", *_arguments(run, to, made, with_sources)),
            export_places(run, made.parent),
            level_now(run),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            umask=users_umask(),
        )
        try:
            _follow(child, made, target, log, progress)
        finally:
            # Also on Ctrl+C here: its own session keeps the child from hearing that itself.
            _end(child)
            hearing.close()
            if tried := hearing.news():
                warn(tried)
        progress("reading back what was written", 0, 0)
        delivery.take_over(most_bytes)
    assert delivery.files is not None
    record_export(run, to, target, delivery.files, report, hearing.facts(), with_sources=with_sources)
    return target


def _most_bytes(run: RunDirectory, output: Output) -> int:
    """More than an export of `run` can have: the base's weights in four times their precision, and what lies beside."""
    weights = total_bytes(files_in(run.spec().model.path, ("*.safetensors",)))
    return 4 * max(weights, total_bytes(files_in(output.path))) + _EXTRAS_BYTES


def _end(child: GroupProcess, patience_seconds: float = 0.0) -> None:
    """With what it started."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(patience_seconds)
    if child.returncode is None:
        child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(TERMINATE_SECONDS)
    child.kill()
    child.wait()


def _arguments(run: RunDirectory, to: Form, target: Path, with_sources: bool) -> list[str]:
    return [str(run.path), "--to", to, "--into", str(target), *["--with-sources"] * with_sources]


def _follow(child: GroupProcess, made: Path, target: Path, log: IO[bytes], progress: Progress) -> None:
    """Until all files are in `made`, as the child says. Raises Problem, about `target` where that is meant."""
    assert child.stdout is not None
    with child.stdout as lines:
        while line := lines.readline(_MESSAGE_BYTES):
            match from_line(line) if line.endswith(b"\n") else None:
                case {"kind": "progress", "detail": str(detail), "done": int(done), "total": int(total)}:
                    progress(printable(detail), done, total)
                case {"kind": "problem", "where": str(where), "what": str(what), "fix": str(fix)}:
                    where = where.replace(str(made.parent), str(target.parent))
                    raise Problem(where, printable(what, 1000), printable(fix, 1000))
                case {"kind": "finished"}:
                    return
                case _:
                    break
    _end(child, patience_seconds=TERMINATE_SECONDS)
    what = f"its process {describe_exit(child.returncode)}"
    if words := last_line(log):
        what += f"; its last words: {words}"
    raise Problem(f"the export to {target}", what, "Nothing was written there. Free memory or disk, and try again.")
