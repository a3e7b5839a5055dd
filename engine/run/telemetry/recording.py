"""What a supervisor writes: every event into the journal, and into the fold by which the run is steered."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from engine.run.ballast import Ballast
from engine.run.directory import RunDirectory
from engine.run.evidence.keeping import AuditKeeper
from engine.run.telemetry.events import Event, RunState
from engine.run.telemetry.folding import Folding
from engine.run.telemetry.journal import JournalWriter
from engine.run.telemetry.snapshot import save_snapshot
from profiles.problem import printable

# From this much on the journal's fold is kept, so that opening the run stays a matter of milliseconds.
_SNAPSHOT_BYTES = 1 << 23

Written = TypeVar("Written")


class Recording:
    """The journal of a run that lives, and its state as it grows."""

    def __init__(self, run: RunDirectory, folding: Folding):
        """Go on after what `folding` took in, which is all of the journal. Raises OSError."""
        self._run, self._folding = run, folding
        self._journal = JournalWriter(run.events_path)
        self._ballast = Ballast(run.ballast_path)
        self.audit = AuditKeeper(run, lambda text: self.add("note", text=text), self.write_in_reserve)
        """Keeps the run's evidence, of what is journalled and of who started it."""
        self._missing_records = 0
        self._unsynced_told = False
        self._snapshot_offset = 0

    def state(self) -> RunState:
        """The run as it is now."""
        return self._folding.state()

    def add(self, kind: str, /, **fields: Any) -> None:
        """Journal one event. On a full disk training goes on, and the gap is told when there is room again."""
        try:
            event = self._append(kind, fields)
        except RecursionError:
            # Lists within lists by the hundred: nothing that we would send, and nothing to go by.
            self.add("note", text=f"a {kind} event was nested too deeply to be written")
            return
        except OSError as error:
            self._missing_records += 1
            # The log is no place for a row of the data.
            told = "" if kind == "sample" else f" {printable(fields, 2000)}"
            say(f"not journalled ({error.strerror}): {kind}{told}")
            # The run goes by it all the same: a rung that nobody could write down must not be taken again and again.
            self._folding.add({"seq": self._journal.sequence, "at": time.time(), "kind": kind, **fields})
            self.audit.journalled(kind, fields)
            return
        self._folding.add(event)
        self.audit.journalled(kind, fields)
        self._ballast.hold_again()
        if (doubt := self._journal.unsynced) is not None and not self._unsynced_told:
            self._unsynced_told = True
            text = f"the disk takes records but does not confirm them ({doubt.strerror}): a power cut may lose the last"
            self.add("note", text=text)
        if self._journal.offset() - self._snapshot_offset > _SNAPSHOT_BYTES:
            self._keep_snapshot()
        if self._missing_records:
            missing, self._missing_records = self._missing_records, 0
            self.add("note", text=f"records before this one could not be written: {missing}; see engine.log")

    def add_step(self, fields: dict[str, Any]) -> None:
        """Journal a step with the run's totals after it: with them there a reader need not add up every step."""
        tokens, seconds = self._folding.totals()
        totals = {
            "tokens_seen": tokens + _number(fields.get("tokens")),
            "training_seconds": round(seconds + _number(fields.get("seconds")), 6),
        }
        self.add("step", **{**fields, **totals})

    def write_in_reserve(self, write: Callable[[], Written]) -> Written:
        """Call `write`, and on a full disk again with the space held in reserve. Raises OSError."""
        try:
            return write()
        except OSError:
            if not self._ballast.give_up():
                raise
            return write()

    def close(self) -> None:
        """Nothing more will be written."""
        self._ballast.give_up()
        try:
            self._journal.close()
        except OSError as error:
            say(f"the disk lost records of the journal ({error.strerror})")

    def _append(self, kind: str, fields: dict[str, Any]) -> Event:
        """Write one event; what a person must know also where the disk is full. Raises OSError."""
        if kind in ("step", "device"):  # these can wait until there is room; that the run waits for room cannot
            return self._journal.append(kind, **fields)
        return self.write_in_reserve(lambda: self._journal.append(kind, **fields))

    def _keep_snapshot(self) -> None:
        self._snapshot_offset = self._journal.offset()
        try:
            save_snapshot(self._run, self._folding.state(), self._folding.recent, self._snapshot_offset)
        except OSError as error:
            say(f"the journal's fold was not kept ({error.strerror})")


def _number(value: Any) -> Any:
    """`value`, or 0 where it is no number to add."""
    try:
        return value if isinstance(value, int | float) and math.isfinite(value) else 0
    except OverflowError:  # an integer that no float can hold
        return 0


def say(text: str) -> None:
    """Into engine.log, which a full disk does not take either."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
