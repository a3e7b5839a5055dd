"""`finetui resume RUN`: continue a stopped or failed run from its last checkpoint."""

from __future__ import annotations

import argparse

from engine.run.directory import find_run
from engine.run.launch import resume
from tui.commands import status
from tui.commands.output import Output
from tui.commands.show import add_run_argument
from tui.commands.watch import add_wait_argument, watch_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--queue", action="store_true", help="wait until the memory that the run needs is free")
    parser.add_argument(
        "--kept-data",
        action="store_true",
        help="go on with the data as it was prepared at the start, though its files have changed",
    )
    add_wait_argument(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    found = find_run(arguments.run)
    if arguments.kept_data:
        found.accept_kept_data()
    resume(found, wait=arguments.queue)
    output.line(f"{found.name} goes on. Watch it: finetui watch {found.name}")
    return watch_run(found, output) if arguments.wait else status.DONE
