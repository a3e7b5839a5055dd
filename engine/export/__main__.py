"""The child process that exports: `python -m engine.export RUN_PATH --to adapter|merged --into DIR [--with-sources]`.

One JSON object a line on stdout: {"kind": "progress", "detail", "done", "total"} in bytes (0 of 0 where it
cannot be said), then {"kind": "finished", "path"}, or {"kind": "problem", "where", "what", "fix"} with exit status 2.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from engine.child_process import Send, signal_on_parent_death, take_stdout
from engine.export.card import write_card
from engine.export.cleaning import clean_settings
from engine.export.copying import TOKENIZER_FILES, copy_files, files_in, total_bytes
from engine.export.output import Output, output_of
from engine.export.sentence_files import copy_sentence_files
from engine.export.staging import check_target, staged
from engine.methods.heads import LANGUAGE, NO_HEAD, Head, read_classes
from engine.offline import set_offline
from engine.run.directory import RunDirectory
from engine.run.sealing.telling import tell_tries
from engine.swift_imports import swift_imports
from profiles.problem import Problem


def main(arguments: list[str] | None = None) -> int:
    """Export as asked. Returns 0, or 2 after a Problem."""
    parser = argparse.ArgumentParser(prog="python -m engine.export")
    parser.add_argument("run", type=Path)
    parser.add_argument("--to", choices=("adapter", "merged"), required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--with-sources", action="store_true")
    options = parser.parse_args(arguments)
    # As an exception, so that an asked-for end also removes what was staged.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal_on_parent_death(signal.SIGTERM)
    set_offline()
    send = take_stdout()
    tell_tries()
    try:
        run = RunDirectory(options.run)
        target = export(run, options.to, options.into, send, with_sources=options.with_sources)
    except Problem as problem:
        send("problem", **problem.as_dict())
        return 2
    send("finished", path=str(target))
    return 0


def export(run: RunDirectory, to: str, into: Path, send: Send, *, with_sources: bool = False) -> Path:
    """Write the result of `run` into the folder `into`; returns that, absolute. Raises Problem."""
    spec, output, target = run.spec(), output_of(run), check_target(into)

    def progress(detail: str, done: int, total: int) -> None:
        send("progress", detail=detail, done=done, total=total)

    if output.kind == "model" and to == "adapter":
        raise Problem(
            f"run {run.name}", "trained the model's own weights, so it has no adapter", "Export it with --to merged."
        )
    merges = output.kind == "adapter" and to == "merged"
    # peft writes a template of a card of its own, which ours replaces.
    files = [path for path in files_in(output.path) if path.name != "README.md"]
    size = total_bytes(files_in(spec.model.path, ("*.safetensors",)) if merges else files)
    with staged(target, size) as folder:
        if merges:
            with swift_imports():
                from engine.export.merge import merge

            merge(spec.model.path, output.path, folder, size, progress, _head_of(run, output))
        else:
            copy_files(files, folder, progress)
            if not files_in(folder, TOKENIZER_FILES):
                copy_files(files_in(spec.model.path, TOKENIZER_FILES), folder, progress)
        copy_sentence_files(output.path, folder)
        clean_settings(folder)
        (folder / "README.md").write_text(write_card(run, to, with_sources=with_sources), encoding="utf-8")
    return target


def _head_of(run: RunDirectory, output: Output) -> Head:
    """The head that an adapter was trained under. Raises Problem when the names of its classes are lost."""
    match run.spec().objective.kind:
        case "embedding":
            return NO_HEAD
        case "classification":
            try:
                return read_classes(output.path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise Problem(
                    str(output.path),
                    f"has no readable list of classes: {error}",
                    "Resume the run; it is written again.",
                ) from error
    return LANGUAGE


if __name__ == "__main__":
    sys.exit(main())
