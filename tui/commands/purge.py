"""`finetui purge RUN`: removes a run with all that finetui keeps of it, and says what remains."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from engine.run.directory import find_run
from engine.run.evidence.purging import PurgePlan, end_purge, plan_purge, purge, unfinished_purge
from engine.run.evidence.remains import find_remains
from profiles.problem import Problem
from tui.commands import status
from tui.commands.output import Output
from tui.commands.show import add_run_argument
from tui.format import bytes_text
from tui.purge_words import going_lines, remaining_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace, output: Output) -> int:
    try:
        found = find_run(arguments.run)
    except Problem:
        if (note := unfinished_purge(arguments.run)) is not None:
            output.line(f"{end_purge(note)}: the purge that was cut off is done.")
            return status.DONE
        found = find_remains(arguments.run)
    plan = plan_purge(found)
    output.lines(list(_lines(plan)))
    if not arguments.yes and not _agrees(plan):
        output.line("Nothing was removed.")
        return status.DONE
    purge(plan)
    output.line(f"{plan.run.name} is removed.")
    return status.DONE


def _lines(plan: PurgePlan) -> Iterator[str]:
    yield f"{plan.run.name}: {bytes_text(plan.bytes)} go, for good:"
    yield from (f"  {line}" for line in going_lines(plan))
    yield "what remains:"
    yield from (f"  {line}" for line in remaining_lines(plan))


def _agrees(plan: PurgePlan) -> bool:
    """Asks, where somebody is there to answer. Raises Problem where nobody is."""
    if not sys.stdin.isatty():
        raise Problem(plan.run.name, "was not removed: nobody is there to be asked", "Say --yes if it is to go.")
    try:
        return input("Remove it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
