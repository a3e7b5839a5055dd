"""A run's journal read into its state: in one sweep when it is opened, then event by event as it grows."""

from __future__ import annotations

from engine.run.directory import RunDirectory
from engine.run.telemetry.events import RunState
from engine.run.telemetry.folding import RECENT_STEPS, Folding
from engine.run.telemetry.journal import JournalTail, events_on, last_event
from engine.run.telemetry.scan import first_step, telling_lines
from engine.run.telemetry.series import stride_for
from engine.run.telemetry.snapshot import load_snapshot

# About what a processor's own cache holds, since a chunk is gone over several times.
_CHUNK_BYTES = 1 << 20


def open_journal(run: RunDirectory) -> tuple[Folding, JournalTail]:
    """All that a run's journal holds now, and the tail to follow it with from there. Raises OSError when it cannot be
    read. Of a million steps it takes seconds, and a moment with a snapshot: the same state as from every event, from
    a part of the lines."""
    snapshot = load_snapshot(run)
    state, recent, offset = snapshot or (None, [], 0)
    folding, tail = Folding(state, recent), JournalTail(run.events_path, offset)
    newest = last_event(run.events_path, kind="step")
    newest_step = newest["step"] if newest and isinstance(newest.get("step"), int) else 0
    first = state.steps[0].step if state and state.steps else None
    while (chunk := tail.chunk(_CHUNK_BYTES)) and not tail.begun_anew:
        first = first_step(chunk) if first is None else first
        stride = 1 if first is None else stride_for(first, newest_step)
        lines, tokens, seconds = telling_lines(chunk, stride, newest_step - RECENT_STEPS + 1)
        folding.add_work(tokens, seconds)
        for line in lines:
            events, damaged = events_on(line)
            folding.count_damaged(damaged)
            for event in events:
                folding.add(event)
    return open_journal(run) if tail.begun_anew else (folding, tail)


class FollowedRun:
    """A run's state, kept up with its journal. For one thread at a time."""

    def __init__(self, run: RunDirectory):
        """Take in all that the journal holds now. Raises OSError when it cannot be read."""
        self._run = run
        self._damaged = 0
        self._open()

    def catch_up(self, slice_bytes: int = 1 << 20) -> bool:
        """Take in what was added since; whether anything was. A journal that was cut short, or is another by now, is
        taken in from its beginning. Raises OSError when it cannot be read."""
        grown = False
        while True:
            events, damaged = self._tail.read(slice_bytes), self._tail.damaged
            if self._tail.begun_anew:
                self._open()
                return True
            self._folding.count_damaged(damaged - self._damaged)
            grown |= bool(events) or damaged > self._damaged
            self._damaged = damaged
            if not events:
                return grown
            for event in events:
                self._folding.add(event)

    def state(self) -> RunState:
        """The run as it is now."""
        return self._folding.state()

    def _open(self) -> None:
        self._folding, self._tail = open_journal(self._run)
        self._damaged = self._tail.damaged


def read_state(run: RunDirectory) -> RunState:
    """What a run's journal says now; the empty state when it has none yet. Raises OSError when it cannot be read."""
    return open_journal(run)[0].state()
