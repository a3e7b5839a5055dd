"""What removing a run takes away and what it leaves, in words: the same in `finetui purge` and on Home."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from profiles.problem import printable
from tui.format import bytes_text, counted

if TYPE_CHECKING:
    from engine.run.evidence.purging import PurgePlan

PATHS_SHOWN = 10
LONGEST_PATH = 300


def going_lines(plan: PurgePlan) -> Iterator[str]:
    """What goes, a line each."""
    folder = printable(plan.run.path, LONGEST_PATH)
    yield f"its folder with checkpoints, outputs, journal and audit log, {bytes_text(plan.folder_bytes)}: {folder}"
    if plan.caches.files:
        files = counted(len(plan.caches.files), "file")
        yield f"what the cache holds of its data, {files}, {bytes_text(plan.cache_bytes)}"
    if plan.libraries_bytes:
        yield f"what libraries compiled for it, {bytes_text(plan.libraries_bytes)}"


def remaining_lines(plan: PurgePlan) -> Iterator[str]:
    """What stays, a line each: what a person keeps elsewhere first."""
    for path in plan.exports[:PATHS_SHOWN]:
        yield f"what was exported to {printable(path, LONGEST_PATH)}"
    if (more := len(plan.exports) - PATHS_SHOWN) > 0:
        yield counted(more, "further export")
    if plan.data:
        more = len(plan.data) - PATHS_SHOWN
        rest = f" and {more} more" if more > 0 else ""
        yield f"the data itself: {', '.join(printable(path, 200) for path in plan.data[:PATHS_SHOWN])}{rest}"
    if plan.base is not None:
        yield f"the base model, and what the cache knows of it: {printable(plan.base, LONGEST_PATH)}"
    if plan.caches.shared:
        yield f"{counted(plan.caches.shared, 'file')} of the cache that other runs use"
    yield "a line in finetui's home that says which run was removed, when and by whom"
    yield "copies in backups, and on the disk itself: what is removed is not overwritten"


def remained_words(plan: PurgePlan) -> str:
    """What a person may want to look after once the run is gone, in one short sentence."""
    kept = [counted(len(plan.exports), "export")] if plan.exports else []
    kept += ["the data"] if plan.data else []
    kept += ["the base model"] if plan.base is not None else []
    if not kept:
        return "Copies in backups are not known to finetui."
    named = " and ".join([", ".join(kept[:-1]), kept[-1]] if kept[1:] else kept)
    return f"{named[:1].upper()}{named[1:]} {'remain' if kept[1:] or len(plan.exports) > 1 else 'remains'}."
