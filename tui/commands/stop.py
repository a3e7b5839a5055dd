"""`finetui stop RUN`: end a run after its present step, with everything saved."""

from __future__ import annotations

import argparse

from engine.run.directory import find_run
from engine.run.launch import stop
from engine.run.summary import summarise
from tui.commands import status
from tui.commands.output import Output
from tui.commands.show import add_run_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument(
        "--now", action="store_true", help="kill it, for a run that does not react: the last save remains"
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    found = find_run(arguments.run)
    if arguments.now:
        from engine.run.control import ask

        ask(found, "kill")
        output.line(f"{found.name} is killed. Its last checkpoint remains: finetui resume {found.name}")
        return status.DONE
    was_queued = summarise(found).state == "queued"
    stop(found)
    if was_queued:
        output.line(f"{found.name} leaves the queue; nothing was started.")
        output.line(f"  put it back: finetui resume {found.name} --queue")
        return status.DONE
    output.line(f"{found.name} was asked to stop: it finishes its step, saves and ends.")
    output.line(f"  see it end: finetui watch {found.name}   continue later: finetui resume {found.name}")
    return status.DONE
