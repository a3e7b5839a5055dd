"""Noticing a worker that says nothing for much longer than it usually does, and what can be told about it.

Nothing is done about it: a slow worker and a stuck one look alike from outside, and a person decides.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.run.telemetry.recording import say
from engine.run.times import seconds_text
from engine.run.watching.process_state import ProcessState, doing_text
from engine.run.watching.silence import Silence
from engine.run.watching.stacks import Stacks, innermost_of_ours, telling_frames

LEAST_SECONDS_VARIABLE = "FINETUI_STALL_SECONDS"
"""An environment variable with the shortest silence that counts as a stall whatever the worker does, for tests."""

# Ten times the usual is beyond what other programs on the machine or rows of another length do to a step; three times
# the longest of late, for what has steps of two kinds, some of them rare.
_USUAL_TIMES, _LONGEST_TIMES = 10, 3
_LEARNT_FROM, _REMEMBERED = 3, 50
# A training does some ten different things, and says each in a line. What goes beyond that gets no usual time.
_MOST_DOINGS, _DETAIL_CHARACTERS = 200, 200
# Shorter than this nobody minds, and a disk or a network file system may well take it.
_FLOOR_SECONDS = 60.0
# What says nothing while it lasts and has no usual time: importing the libraries, 140 GB of weights read at 80 MB/s,
# the kernels that are compiled for the first step, the first save.
_PATIENCE_SECONDS = 1800.0
# These never get a usual time: what comes next in them is another thing.
_PATIENT_PHASES = ("starting", "preparing", "loading")
_NEVER_STALLED = "paused"  # it waits for a person to make room on the disk, and says so
_STACK_SECONDS = 3.0
_SUSPENDED_SECONDS = 2.0
_DIGITS = re.compile(r"\d+")
_WHILE = {
    "starting": "while it started",
    "preparing": "while the run was prepared",
    "loading": "while the model was loaded",
    "evaluating": "while it evaluated",
    "saving": "while it saved",
    "ending": "after its last word",
}


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds since some moment: `running` stands still while the machine is suspended, `passing` does not."""

    running: Callable[[], float] = time.monotonic
    passing: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)


class StallWatch:
    """One worker's silences. `heard` takes in what it says; `look` is to be called about once a second."""

    def __init__(self, pid: int, stacks: Stacks, clocks: Clocks = Clocks()):
        self._pid, self._stacks, self._clocks = pid, stacks, clocks
        given = os.environ.get(LEAST_SECONDS_VARIABLE)
        self._floor = float(given) if given else _FLOOR_SECONDS
        self._patience = float(given) if given else _PATIENCE_SECONDS
        self._gaps: dict[str, deque[float]] = {}
        self._phase, self._doing = "starting", "starting"
        self._silence = Silence(clocks.running)
        self._suspended = clocks.passing() - clocks.running()
        self._told = 0
        self._first_look: tuple[float, ProcessState] | None = None
        self._noticed_at: float | None = None
        """The length of a silence that was noticed and is to be told once the worker's stacks are there."""
        self._answers = False

    def heard(self, message: Mapping[str, Any]) -> None:
        """The worker said something."""
        gap = self._silence.end()
        if self._doing in self._gaps or len(self._gaps) < _MOST_DOINGS:
            self._gaps.setdefault(self._doing, deque(maxlen=_REMEMBERED)).append(gap)
        self._told, self._first_look, self._noticed_at = 0, None, None
        if message["kind"] == "phase":
            self._phase = self._doing = str(message.get("phase"))[:_DETAIL_CHARACTERS]
            if self._phase in ("evaluating", "saving"):
                # A batch of answers takes many times as long as one of losses, a model as long as many checkpoints.
                self._doing += _DIGITS.sub("", f" {str(message.get('detail'))[:_DETAIL_CHARACTERS]}")
        elif message["kind"] in ("step", "checkpoint"):
            self._phase = self._doing = "training"
        elif message["kind"] in ("outcome", "out_of_memory"):
            self._phase = self._doing = "ending"

    def was_not_heard(self) -> None:
        """The supervisor does not listen now: a silence is not the worker's."""
        self._silence.end()

    def look(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Kind and fields of the events that there are to journal: `stall` for each silence, and again whenever that
        has doubled; `note` for a machine that slept."""
        yield from self._machine_slept()
        silence = self._silence.seconds()
        if self._phase == _NEVER_STALLED:
            return
        limit = self._limit() * 2**self._told
        if self._first_look is None and silence >= min(1.0, limit / 2):
            self._first_look = silence, ProcessState.of(self._pid)
        if self._noticed_at is None:
            if silence > limit:
                # Asked now and read at a later look: that may take a moment, and nothing here waits.
                self._answers = not ProcessState.of(self._pid).is_suspended and self._stacks.ask(self._pid)
                self._noticed_at = silence
            return
        stacks = self._stacks.read() if self._answers else ""
        if stacks or not self._answers or silence - self._noticed_at > _STACK_SECONDS:
            self._told += 1
            self._noticed_at = None
            if stacks:
                say(f"the trainer's stacks after {seconds_text(silence)} of silence:\n{stacks}")
            yield "stall", self._as_fields(silence, stacks)

    def _machine_slept(self) -> Iterator[tuple[str, dict[str, Any]]]:
        suspended = self._clocks.passing() - self._clocks.running()
        if (slept := suspended - self._suspended) > _SUSPENDED_SECONDS:
            self._suspended = suspended
            yield "note", {"text": f"the machine was suspended for {seconds_text(slept)}, and the run with it"}

    def _limit(self) -> float:
        """The longest silence that is none to speak of, in seconds."""
        gaps = self._gaps.get(self._doing, ())
        if self._phase == "ending":
            return self._floor
        if self._phase in _PATIENT_PHASES or len(gaps) < _LEARNT_FROM:
            return self._patience
        return max(self._floor, _USUAL_TIMES * statistics.median(gaps), _LONGEST_TIMES * max(gaps))

    def _as_fields(self, silence: float, stacks: str) -> dict[str, Any]:
        """The fields of a `stall` event."""
        gaps, frames = self._gaps.get(self._doing, ()), telling_frames(stacks)
        learnt = self._phase not in _PATIENT_PHASES and len(gaps) >= _LEARNT_FROM
        usual = statistics.median(gaps) if learnt else None
        assert self._first_look is not None
        since, before = self._first_look
        process = doing_text(ProcessState.of(self._pid), before, silence - since)
        text = f"the trainer said nothing for {seconds_text(silence)} {_WHILE.get(self._phase, 'in training')}"
        if usual is not None:
            text += f" (usual: {seconds_text(usual)})"
        text += f"; its process {process}"
        if frames:
            text += f", in {innermost_of_ours(frames) or frames[-1]}"
        return {
            "seconds": round(silence, 1),
            "usual_seconds": None if usual is None else round(usual, 3),
            "phase": self._phase,
            "process": process,
            "stack": frames,
            "text": text,
        }
