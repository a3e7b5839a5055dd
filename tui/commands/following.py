"""Follow a run's journal to its end, for `watch`, `train --wait` and `demo`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from engine.run.directory import RunDirectory
from engine.run.liveness import liveness
from engine.run.summary import RunSummary, summarise
from engine.run.telemetry.events import Event, RunState
from engine.run.telemetry.folding import Folding
from engine.run.telemetry.journal import JournalTail
from engine.run.telemetry.reading import open_journal
from tui.attention import Attention, news
from tui.commands import status
from tui.commands.output import Output
from tui.commands.wording import event_text, progress_text
from tui.run_words import why_words

POLL_SECONDS = 0.25
# Of a journal longer than this only the state is shown, and what comes: its events would scroll by for long.
WHOLE_STORY_BYTES = 4 << 20
PLAIN_PROGRESS_SECONDS = 5.0
CALLING = ("stall", "seal", "seal_check", "way_out")
"""Kinds of events that may be news before the run ends."""
STATUS_BY_OUTCOME = {"finished": status.DONE, "failed": status.FAILED, "stopped": status.STOPPED}


class Caller:
    """Calls the person at the terminal for what becomes of a run while a command follows it."""

    def __init__(self, run: RunDirectory, output: Output):
        """What the run has come to by now is no news."""
        self._run = run
        self._attention = Attention(output.terminal, output.to_terminal)
        self._before = summarise(run)

    def look(self) -> RunSummary:
        """Call where there is news; the run as it is now."""
        before, self._before = self._before, summarise(self._run)
        for told in news(before, self._before):
            self._attention.call(told.title, told.text)
        return self._before


def journal_until_end(run: RunDirectory, tail: JournalTail) -> Iterator[list[Event]]:
    """The events from where `tail` is, in slices as they come, until the engine is gone.

    Slices may be empty: one comes every POLL_SECONDS, so that the caller can redraw what changes with time.
    """
    while True:
        # Liveness first: what an engine wrote before it went is then surely in the file that is read next.
        live = liveness(run) == "live"
        while events := tail.read():
            yield events
        if not live:
            return
        yield []
        time.sleep(POLL_SECONDS)


def follow(run: RunDirectory, output: Output, caller: Caller) -> RunState:
    """Print a run's progress until it ends: one line drawn over on a terminal, plain lines elsewhere."""
    folding, tail = _beginning(run, output)
    shown, shown_at = "", float("-inf")
    for events in journal_until_end(run, tail):
        for event in events:
            folding.add(event)
            if text := event_text(event):
                output.line(text)
                shown = ""
            if event["kind"] in CALLING:
                caller.look()
        state = folding.state()
        progress = progress_text(state)
        if progress == shown or state.outcome:
            continue
        if output.live:
            output.status(progress)
        elif time.monotonic() - shown_at >= PLAIN_PROGRESS_SECONDS:
            output.line(progress)
            shown_at = time.monotonic()
        else:
            continue
        shown = progress
    output.clear_status()
    return folding.state()


def _beginning(run: RunDirectory, output: Output) -> tuple[Folding, JournalTail]:
    """What is known before the first event that is shown, and the tail that reads on from there."""
    try:
        is_short = run.events_path.stat().st_size <= WHOLE_STORY_BYTES
    except FileNotFoundError:
        is_short = True
    if is_short:
        return Folding(), JournalTail(run.events_path)
    folding, tail = open_journal(run)
    output.line(f"{run.name} has come a long way; finetui show {run.name} tells it. Now:")
    output.line(progress_text(folding.state()))
    return folding, tail


def leave_going(run: RunDirectory, output: Output) -> int:
    """Say that the run goes on though nobody watches; returns the exit status of an interrupted command."""
    output.warn(
        f"No longer watching; {run.name} goes on. Come back: finetui watch {run.name}   end it: finetui stop {run.name}"
    )
    return status.INTERRUPTED


def exit_status(state: RunState, output: Output, caller: Caller) -> int:
    """0 when the run finished, 3 when it was stopped, 1 when it failed; an engine that died is told."""
    summary = caller.look()
    if state.outcome is None:
        output.warn(f"failed: {why_words(summary.cause, summary.why)}")
        if summary.remedy:
            output.warn(f"  remedy: {summary.remedy}")
        return status.FAILED
    return STATUS_BY_OUTCOME[state.outcome]
