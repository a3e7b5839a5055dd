"""`finetui export RUN --to adapter|merged`: write a run's adapter, or the merged model, to a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.export.request import export_run
from engine.run.directory import find_run
from tui.commands import status
from tui.commands.output import Output
from tui.commands.show import add_run_argument
from tui.format import bytes_of_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--to", required=True, choices=("adapter", "merged"), help="what to write")
    parser.add_argument("--into", type=Path, metavar="DIR", help="an empty or new folder (default: in the run's)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, output: Output) -> int:
    found = find_run(arguments.run)
    into = arguments.into.expanduser().absolute() if arguments.into else found.path / "exports" / arguments.to

    told = ""

    def progress(detail: str, done_bytes: int, total_bytes: int) -> None:
        nonlocal told
        if arguments.json:
            return
        if output.live:
            output.status(f"{detail} {bytes_of_text(done_bytes, total_bytes)}" if total_bytes else detail)
        elif detail != told:
            output.line(detail)
        told = detail

    written = export_run(found, arguments.to, into, progress)
    output.clear_status()
    if arguments.json:
        output.json({"run": found.name, "to": arguments.to, "path": str(written)})
    else:
        output.line(f"{arguments.to}: {written}")
    return status.DONE
