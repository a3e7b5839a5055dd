"""What a run tells while something is under way, and what a person asks of it meanwhile."""

from __future__ import annotations

import time

from engine.run.processes.channel import Channel, MemoryChannel

# How often a measurement that is under way may speak, in seconds.
PHASE_INTERVAL_SECONDS = 0.25


class StopRequestedError(Exception):
    """A person asked the run to stop while it was measuring."""


class Talk:
    """The channel, with the phase that was told last and the requests that wait for the next step."""

    def __init__(self, channel: Channel | MemoryChannel):
        self._channel = channel
        self.send = channel.send
        self.stopping = False
        """Whether a stop was asked for; set by whoever obeys it."""
        self.phase_name = ""
        self._spoke_at = 0.0
        self._unanswered: list[str] = []

    @property
    def supervisor_gone(self) -> bool:
        """Whether nobody hears what is told any more."""
        return self._channel.supervisor_gone

    def phase(self, phase: str, detail: str, done: int = 0, total: int = 0) -> None:
        """Tell what goes on now, `done` of `total`, but not too often."""
        now = time.monotonic()
        if 0 < done < total and now - self._spoke_at < PHASE_INTERVAL_SECONDS:
            return
        self._spoke_at, self.phase_name = now, phase
        self.send("phase", phase=phase, detail=detail, done=done, total=total)

    def quiet_phase(self, phase: str, detail: str, done: int, total: int) -> None:
        """As `phase`, but silent for what is over before anybody could read it."""
        if done == 1:
            self._spoke_at = time.monotonic()
        if 1 < done < total:
            self.phase(phase, detail, done, total)

    def requests(self) -> list[str]:
        """What was asked for since the last call, in order: stop, save, evaluate, sample."""
        requests, self._unanswered = [*self._unanswered, *self._channel.commands()], []
        return requests

    def stop_if_asked(self) -> None:
        """Raise StopRequestedError when a stop was asked for; other requests wait for the next step."""
        if self.stop_asked():
            raise StopRequestedError

    def stop_asked(self) -> bool:
        """Whether a stop was asked for since the last step; other requests wait for the next one."""
        self._unanswered += self._channel.commands()
        return "stop" in self._unanswered or self.supervisor_gone
