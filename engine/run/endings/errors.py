"""What an exception in the worker says of how the run ended."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from pathlib import Path

from engine.logged_errors import words_of
from engine.run.disk_room import disk_is_full
from engine.run.endings.causes import Cause, CausedProblem, Ending
from engine.run.endings.gpu_words import gpu_fault
from engine.seal.sealing import SealRefused
from profiles.problem import Problem, printable


def ending_of_error(error: BaseException) -> Ending:
    """How a run ends that `error` stopped; its remedy is empty where the cause's usual one will do."""
    for each in raised_from(error):
        # A problem's own words may quote a person's data; what it was raised from may not.
        if not isinstance(each, Problem) and (found := gpu_fault(str(each))) is not None:
            return found
    if isinstance(error, Problem):
        cause = _cause_of_problem(error)
        return Ending("failed", cause, f"{error.where}: {error.what}", "" if cause == "disk_full" else error.fix)
    if (full := _full_disk(error)) is not None:
        where = f" ({printable(full.filename)})" if isinstance(full, OSError) and full.filename else ""
        return Ending("failed", "disk_full", f"a file could not be written, since the disk is full{where}")
    return Ending("failed", "fault", f"finetui itself failed: {_named(error)}{_place(error)}")


def ending_of_start(error: OSError) -> Ending:
    """How a run ends whose worker could not be started."""
    if disk_is_full(error):
        return Ending("failed", "disk_full", "the trainer could not be started, since the disk is full")
    cause: Cause = "host_memory" if error.errno == errno.ENOMEM else "input"
    return Ending("failed", cause, f"the trainer could not be started: {error.strerror}")


def raised_from(error: BaseException) -> Iterator[BaseException]:
    """`error`, then what it was raised from, and so on; what `raise ... from None` left out is left out."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)


def _cause_of_problem(problem: Problem) -> Cause:
    if isinstance(problem, CausedProblem):
        return problem.cause
    if isinstance(problem, SealRefused):
        return "unsealed"
    # Behind `from None` the system's error still is the context.
    return "disk_full" if _full_disk(problem) or disk_is_full(problem.__context__) else "input"


def _full_disk(error: BaseException) -> BaseException | None:
    return next((each for each in raised_from(error) if disk_is_full(each)), None)


def _named(error: BaseException) -> str:
    return words_of(error).splitlines()[0]


def _place(error: BaseException) -> str:
    """Where in finetui's own code, or where at all, the error came up."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_OWN)]
    frame = (own or frames)[-1]
    return f" (line {frame.lineno} of {Path(frame.filename).name})"


_OWN = Path(__file__).parents[3]
