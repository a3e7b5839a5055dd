"""`finetui restart RUN`: end a hanging trainer at once, and go on from the newest checkpoint with another."""

from __future__ import annotations

import argparse

from engine.run.control import ask
from engine.run.directory import find_run
from tui.commands import status
from tui.commands.output import Output
from tui.commands.show import add_run_argument
from tui.commands.watch import add_wait_argument, watch_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    add_wait_argument(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    found = find_run(arguments.run)
    ask(found, "restart")
    output.line(f"{found.name} goes on from its newest checkpoint with another trainer.")
    if arguments.wait:
        return watch_run(found, output)
    output.line(f"  see it go on: finetui watch {found.name}")
    return status.DONE
