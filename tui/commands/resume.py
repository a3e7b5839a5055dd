"""`finetui resume RUN`: continue a stopped or failed run from its last checkpoint."""

from __future__ import annotations

import argparse

from engine.run.circumstances import changes_before_resume, changes_text, refuse_changes
from engine.run.directory import RunDirectory, find_run
from engine.run.launch import resume
from engine.run.processes.orphans import interrupted_runs
from engine.run.summary import summarise
from engine.run.waiting.returning import in_order_of_return
from engine.seal.request import LEVELS
from profiles.problem import Problem
from tui.commands import status
from tui.commands.log_out import warn_of_log_out
from tui.commands.output import Output
from tui.commands.train import add_queue_arguments
from tui.commands.watch import add_wait_argument, watch_run

# Of all others it is told why they cannot be resumed, whatever has changed.
_RESUMABLE = ("stopped", "failed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", help='"latest", a run\'s name or a part of it, or its folder')
    parser.add_argument(
        "--interrupted",
        action="store_true",
        help="resume all runs that were interrupted: the machine was shut down or restarted, or their engines killed",
    )
    add_queue_arguments(parser)
    parser.add_argument(
        "--kept-data",
        action="store_true",
        help="go on with the data as it was prepared at the start, though its files have changed",
    )
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="go on though settings, libraries, data or the base's files have changed since the checkpoint; where only "
        "data files changed, with the data as it was prepared at the start",
    )
    parser.add_argument(
        "--learning-rate", type=float, metavar="RATE", help="the highest rate of the schedule from now on"
    )
    parser.add_argument(
        "--seal",
        choices=LEVELS,
        help="for the rest of the run, how surely its trainer is kept from the network: required, best or off "
        "(see privacy.seal of a spec)",
    )
    add_wait_argument(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    _check_arguments(arguments)
    warn_of_log_out(output)
    if not arguments.interrupted:
        found = find_run(arguments.run)
        waits = arguments.queue or arguments.beside
        _resume(found, arguments, output, waits=waits, beside=arguments.beside)
        return watch_run(found, output) if arguments.wait else status.DONE
    runs = in_order_of_return(interrupted_runs()[::-1])  # the oldest first
    if not runs:
        output.line("no run was interrupted")
    problems = 0
    for found, waited in runs:
        try:
            # Those that trained side by side do so again, as far as the memory goes.
            _resume(found, arguments, output, waits=True, beside=arguments.beside or not waited)
        except Problem as problem:
            output.problem(problem)
            problems += 1
    return status.PROBLEM if problems else status.DONE


def _check_arguments(arguments: argparse.Namespace) -> None:
    if (arguments.run is None) != arguments.interrupted:
        raise Problem("finetui resume", "takes either a RUN or --interrupted", "`finetui runs` lists the runs.")
    if arguments.interrupted and (arguments.wait or arguments.after is not None):
        option = "--wait" if arguments.wait else "--after"
        raise Problem(option, "is for one run, and --interrupted may resume several", "Give one of them.")
    if (rate := arguments.learning_rate) is not None and not 0 < rate <= 1:
        raise Problem("--learning-rate", f"is {rate:g}; it is more than 0 and at most 1", "Give another, such as 1e-4.")


def _resume(found: RunDirectory, arguments: argparse.Namespace, output: Output, *, waits: bool, beside: bool) -> None:
    """Start one run again, and say so. Raises Problem, naming what changed unless that is to be gone on with."""
    if arguments.kept_data:
        found.accept_kept_data()
    changed = ""
    if summarise(found).state in _RESUMABLE:
        if not arguments.anyway:
            refuse_changes(found)
        changed = changes_text(changes_before_resume(found)) if arguments.anyway else ""
    resume(
        found,
        wait=waits,
        anyway=arguments.anyway,
        learning_rate=arguments.learning_rate,
        seal=arguments.seal,
        after=find_run(arguments.after).name if arguments.after is not None else None,
        beside=beside,
        tell=output.warn,
    )
    output.line(f"{found.name} goes on{f', though {changed}' if changed else ''}. Watch it: finetui watch {found.name}")
