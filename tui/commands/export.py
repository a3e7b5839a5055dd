"""`finetui export RUN --to adapter|merged`: write a run's adapter, or the merged model, to a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.export.request import export_run
from engine.run.directory import find_run
from tui.commands import status
from tui.commands.output import Output
from tui.commands.progress import no_progress, progress_on
from tui.commands.show import add_run_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--to", required=True, choices=("adapter", "merged"), help="what to write")
    parser.add_argument("--into", type=Path, metavar="DIR", help="an empty or new folder (default: in the run's)")
    parser.add_argument(
        "--with-sources", action="store_true", help="name the run, the data's files and their hashes in the card"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, output: Output) -> int:
    found = find_run(arguments.run)
    into = arguments.into.expanduser().absolute() if arguments.into else found.exports / arguments.to

    progress = no_progress if arguments.json else progress_on(output)
    written = export_run(found, arguments.to, into, progress, output.warn, with_sources=arguments.with_sources)
    output.clear_status()
    if arguments.json:
        output.json({"run": found.name, "to": arguments.to, "path": str(written)})
    else:
        output.line(f"{arguments.to}: {written}")
    return status.DONE
