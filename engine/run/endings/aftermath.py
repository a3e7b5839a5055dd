"""What follows on a worker's end: another attempt, journalled with why it is made, or the end of the run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Literal

from engine.run.checkpoints.manifest import newest_step
from engine.run.directory import RunDirectory
from engine.run.endings.causes import Ending
from engine.run.endings.descent import EndOfLadder, Shortage, go_down
from engine.run.endings.remedies import remedy_for
from engine.run.endings.restarting import RESTARTED, Restarts, restart_fields
from engine.run.telemetry.recording import Recording

StoppedBy = Literal["request", "kill", "signal"]
"""Who stopped a run: a person who asked, a person who had it killed, or whoever sends signals to all processes."""

_STOPPED: dict[StoppedBy, str] = {
    "request": "stopped on request",
    "kill": "killed on request",
    "signal": "stopped by a signal, as when the machine shuts down or a session ends,",
}


class Aftermath:
    """For one engine's life with a run. `stopping`: a person asked the run to stop, which no attempt follows on."""

    def __init__(self, run: RunDirectory, recording: Recording):
        self._run, self._recording = run, recording
        self._restarts = Restarts()

    def of_shortage(self, shortage: Shortage, *, stopping: bool) -> Ending | None:
        """Journal the next rung, which the next attempt takes; or the run's end when there is none, or none wanted."""
        learnt_to = newest_step(self._run.checkpoints)
        try:
            rung = go_down(self._run.spec(), self._recording.state(), shortage, learnt_to)
            self._recording.add("ladder", **rung)
        except EndOfLadder as end:
            if not stopping:
                self._recording.add("problem", **end.as_dict())
                return Ending("failed", end.cause, f"{end.where}: {end.what}")
        return self._stopped_without_saving("memory ran out") if stopping else None

    def of_ending(self, ending: Ending, *, stopping: bool, restart_asked: bool) -> Ending | None:
        """Journal that the run is begun again after a worker that ended so; or the run's end, where it is one.
        `restart_asked`: a person had the worker ended for a new one."""
        if ending.cause in RESTARTED and stopping:
            what = "another trainer was just to be started" if restart_asked else ending.why
            return self._stopped_without_saving(what)
        state, learnt_to = self._recording.state(), newest_step(self._run.checkpoints)
        if restart_asked and ending.cause == "worker_killed":
            asked = "a person asked for another trainer"
            self._recording.add("restart", **restart_fields(ending.cause, asked, state, learnt_to))
            return None
        restart = self._restarts.next(ending, state, learnt_to)
        if restart is None:
            return self._restarts.last_word(ending)
        self._recording.add("restart", **restart)
        return None

    def write_end(self, ending: Ending, stopped_by: StoppedBy) -> Ending:
        """Journal the end of the run. Returns it as journalled, with its remedy; one that was stopped was so by
        `stopped_by`. By a signal it is among those that are gone on with after a restart."""
        signalled = {}
        if ending.outcome == "stopped":
            ending = replace(ending, why=f"{_STOPPED[stopped_by]} {ending.why}".rstrip(", "))
            signalled = {"by_signal": True} if stopped_by == "signal" else {}
        if not ending.remedy:
            with suppress(OSError):  # for want of descriptors, say; the end is to be written all the same
                ending = replace(ending, remedy=remedy_for(ending.cause, self._run))
        self._recording.add("end", **ending.as_dict(), step=self._recording.state().step, **signalled)
        return ending

    def _stopped_without_saving(self, what: str) -> Ending:
        learnt_to = newest_step(self._run.checkpoints)
        rest = f"; the checkpoint of step {learnt_to} remains" if learnt_to else ""
        return Ending("stopped", "stopped", f"before the last steps were saved, since {what}{rest}")
