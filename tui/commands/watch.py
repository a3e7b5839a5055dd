"""`finetui watch RUN`: follow a run. Ctrl-C leaves it going."""

from __future__ import annotations

import argparse

from engine.run.directory import RunDirectory, find_run
from engine.run.telemetry.folding import Folding
from engine.run.telemetry.journal import JournalTail
from tui.commands.following import CALLING, Caller, exit_status, follow, journal_until_end, leave_going
from tui.commands.output import Output
from tui.commands.show import add_run_argument
from tui.commands.wording import measurements_table, output_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the journal's events as they come, one a line")


def add_wait_argument(parser: argparse.ArgumentParser) -> None:
    """`--wait`, for the commands that start an engine."""
    parser.add_argument(
        "--wait",
        action="store_true",
        help="stay until it ends; exit status 0 finished, 1 failed, 3 stopped",
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    return watch_run(find_run(arguments.run), output, as_json=arguments.json)


def watch_run(run: RunDirectory, output: Output, as_json: bool = False) -> int:
    """Print `run` until it ends; returns the exit status that tells how, after Ctrl-C 130."""
    caller = Caller(run, output)
    try:
        if as_json:
            folding = Folding()
            for events in journal_until_end(run, JournalTail(run.events_path)):
                for event in events:
                    folding.add(event)
                    output.json(event, indent=None)
                    if event["kind"] in CALLING:
                        caller.look()
            return exit_status(folding.state(), output, caller)
        state = follow(run, output, caller)
    except KeyboardInterrupt:
        return leave_going(run, output)
    output.lines(measurements_table(state))
    output.lines(output_lines(run, state))
    return exit_status(state, output, caller)
