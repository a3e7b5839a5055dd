"""How a run ended, from its worker's last message, or from the way in which it died without one."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from engine.run.endings.causes import CAUSES, Cause, Ending
from engine.run.endings.gpu_words import last_words_of_gpu
from engine.run.telemetry.events import Outcome
from profiles.problem import printable

# The line that names a fault, in a traceback and in what Python prints when native code crashed. Threads and
# libraries often print more after it.
_FAULT = re.compile(r"Fatal Python error|[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)(:|$)")
# Signals that native code gets for what it did itself; any other came from outside.
_OF_ITS_OWN = (
    *(signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL),
    *(signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS),
)
_CAUSE_OF_OUTCOME: dict[Outcome, Cause] = {"finished": "finished", "stopped": "stopped", "failed": "fault"}

MOST_CHARACTERS = 4_000
"""Of what a worker says of its end: it is kept in the audit log too."""


def told_ending(fields: Mapping[str, Any]) -> Ending:
    """The ending that a worker told in its `outcome` message."""
    said = fields.get("outcome")
    outcome = next((each for each in _CAUSE_OF_OUTCOME if each == said), None)
    if outcome is None:
        return Ending("failed", "fault", f"the trainer ended with {printable(repr(said))}, which is no outcome")
    cause = next((each for each in CAUSES if each == fields.get("cause")), _CAUSE_OF_OUTCOME[outcome])
    why, remedy = str(fields.get("why", "")), str(fields.get("remedy") or "")
    return Ending(outcome, cause, why[:MOST_CHARACTERS], remedy[:MOST_CHARACTERS])


def ending_of_death(status: int, log: Sequence[str], *, kernel_counts: bool) -> Ending:
    """The ending of a run whose worker ended without a word, by its exit status (minus the number of a signal) and the
    last lines that it printed. `kernel_counts`: whether a kill by the kernel would have been noticed before."""
    if status == -signal.SIGKILL:
        perhaps = "" if kernel_counts else ", perhaps by the kernel, when memory ran out"
        return Ending("failed", "worker_killed", f"the trainer was killed from outside (SIGKILL){perhaps}")
    if status == -signal.SIGTERM:
        # Before it listens, that is: to this process as to all others when the machine is shut down.
        return Ending("stopped", "stopped", "before the trainer had begun")
    if (found := last_words_of_gpu(log)) is not None:
        return found
    last = _last_words(log)
    if status < 0:
        name = _signal_name(-status)
        if -status in _OF_ITS_OWN:
            return Ending("failed", "worker_crashed", f"the trainer crashed in native code ({name}){last}")
        return Ending("failed", "worker_killed", f"the trainer was ended from outside by {name}")
    if status == 0:
        return Ending("failed", "fault", f"the trainer ended without saying why{last}")
    return Ending("failed", "fault", f"the trainer failed with exit status {status}{last}")


def after_its_word(status: int, log: Sequence[str]) -> str:
    """What happened to a worker that told its ending and then ended with another status than 0."""
    how = f"was ended by {_signal_name(-status)}" if status < 0 else f"left with exit status {status}"
    return f"after its last word the trainer {how}{_last_words(log)}"


def _last_words(log: Sequence[str]) -> str:
    telling = [line for line in log if _FAULT.match(line)] or log
    return f": {printable(telling[-1], 300)}" if telling else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
