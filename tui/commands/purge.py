"""`finetui purge RUN`: removes a run with all that finetui keeps of it, and says what remains."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from engine.run.directory import find_run
from engine.run.evidence.purging import PurgePlan, end_purge, plan_purge, purge, unfinished_purge
from engine.run.evidence.remains import find_remains
from profiles.problem import Problem, printable
from tui.commands import status
from tui.commands.output import Output
from tui.commands.show import add_run_argument
from tui.format import bytes_text, counted

_EXPORTS_SHOWN = 10


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
    folder = printable(plan.run.path, 300)
    yield f"  its folder with checkpoints, outputs, journal and audit log, {bytes_text(plan.folder_bytes)}: {folder}"
    if plan.caches.files:
        files = counted(len(plan.caches.files), "file")
        yield f"  what the cache holds of its data, {files}, {bytes_text(plan.cache_bytes)}"
    yield "what remains:"
    for path in plan.exports[:_EXPORTS_SHOWN]:
        yield f"  what was exported to {printable(path, 300)}"
    if (more := len(plan.exports) - _EXPORTS_SHOWN) > 0:
        yield f"  {counted(more, 'further export')}"
    if plan.data:
        yield f"  the data itself: {', '.join(printable(path, 200) for path in plan.data[:_EXPORTS_SHOWN])}"
    if plan.base is not None:
        yield f"  the base model, and what the cache knows of it: {printable(plan.base, 300)}"
    if plan.caches.shared:
        yield f"  {counted(plan.caches.shared, 'file')} of the cache that other runs use"
    yield "  a line in finetui's home that says which run was removed, when and by whom"
    yield "  copies in backups, and on the disk itself: what is removed is not overwritten"


def _agrees(plan: PurgePlan) -> bool:
    """Asks, where somebody is there to answer. Raises Problem where nobody is."""
    if not sys.stdin.isatty():
        raise Problem(plan.run.name, "was not removed: nobody is there to be asked", "Say --yes if it is to go.")
    try:
        return input("Remove it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
