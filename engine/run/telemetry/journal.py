"""The journal of a run: events.jsonl, appended to by one writer and followed by any number of readers."""

from __future__ import annotations

import os
import time
from io import FileIO
from pathlib import Path
from typing import Any

from engine.run.telemetry.checksum import checksum_holds, has_checksum, parts_that_hold, with_checksum
from engine.run.telemetry.events import FORMAT_VERSION, Event
from engine.run.telemetry.records import from_line, to_line

JOURNAL_FIELDS = frozenset({"v", "seq", "at", "kind", "crc"})
"""What the journal puts into every line itself; no event has fields of these names."""

# These come often, and a reader sees them without a sync; everything else must outlive a power cut.
_FREQUENT = frozenset({"step", "device", "phase"})
_BLOCK_BYTES = 1 << 16
# The end of a line with its checksum: two journals are not alike there.
_REMEMBERED_BYTES = 32


class JournalWriter:
    """Appends events to a journal, numbered on from where it ended. One writer at a time: the lock sees to it.

    An event that `append` returned can be read by everybody at once. It outlives the death of every process, and a
    power cut too where `unsynced` is None (the frequent kinds: once a later event of another kind is written).
    """

    def __init__(self, path: Path):
        """Open or create the journal at `path`. Raises OSError."""
        last, complete = _end_of(path)
        self._sequence = last["seq"] if last else 0
        self._mid_line = not complete
        self.unsynced: OSError | None = None
        """Why the disk did not confirm the last event that must outlive a power cut; None where it did."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, kind: str, /, **fields: Any) -> Event:
        """Write one event and return it. Raises OSError when it could not be written, and then it does not count.

        A disk that takes the event but does not confirm it is told in `unsynced`. The event counts: to write it again
        could have it there twice, and once a disk has refused to confirm, it confirms what it lost as well.
        """
        assert not fields.keys() & JOURNAL_FIELDS, f"{kind} sets a field that the journal sets itself"
        event = {
            "v": FORMAT_VERSION,
            "seq": self._sequence + 1,
            "at": round(time.time(), 3),
            "kind": kind,
            **fields,
        }
        line = with_checksum(to_line(event))
        # After a line that broke off (a crash) the next begins on a line of its own.
        self._write(b"\n" + line if self._mid_line else line)
        self._sequence += 1
        if kind not in _FREQUENT:
            self._sync()
        return event

    @property
    def sequence(self) -> int:
        """The number of the last event that was written; 0 before the first."""
        return self._sequence

    def offset(self) -> int:
        """Where the last appended event ends, in bytes; 0 before the first."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def close(self) -> None:
        """Nothing more is written. Raises OSError where a disk tells only now that it lost something."""
        os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):  # more than once only when the disk is nearly full, to learn why it stops
                written += os.write(self._descriptor, data[written:])
        except OSError:
            if written and not self._cut_off(written):
                self._mid_line = True
                if written == len(data) - 1:
                    return  # an event once the next line has begun, so it counts
            raise
        self._mid_line = False

    def _cut_off(self, written: int) -> bool:
        """Take back the part of a line that was written before the disk refused the rest. Where that cannot be done, it
        counts as damaged, and the next event begins on a line of its own."""
        try:
            end = self.offset()
            if os.fstat(self._descriptor).st_size != end:  # somebody wrote after us
                return False
            os.ftruncate(self._descriptor, end - written)
            os.lseek(self._descriptor, end - written, os.SEEK_SET)
        except OSError:
            return False
        return True

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self.unsynced = error
        else:
            self.unsynced = None


class JournalTail:
    """Reads a journal from `offset` bytes on, as far as it is there. A last line without its end means "not yet".

    A journal that was cut short, or is another by now, is read again from its beginning, and `begun_anew` counts that:
    who adds events up must then begin with nothing.
    """

    def __init__(self, path: Path, offset: int = 0):
        self._path = path
        self.offset = offset
        self.damaged = 0
        """Lines passed over because they are not an event: torn by a crash, or changed by hand."""
        self.begun_anew = 0
        self._before = b""  # what ends at `offset`, as it was read

    def read(self, limit_bytes: int = 1 << 20) -> list[Event]:
        """The events that came since the last call, from at most `limit_bytes` of the file (or one longer line);
        empty when there is nothing new or no journal. Raises OSError when the journal cannot be read."""
        events: list[Event] = []
        # A part of the file may hold nothing but damage, and more may follow.
        while not events and (chunk := self.chunk(limit_bytes)):
            for line in filter(None, chunk.split(b"\n")):
                found, damaged = events_on(line)
                events += found
                self.damaged += damaged
        return events

    def chunk(self, limit_bytes: int = 1 << 20) -> bytes:
        """As `read`, but whole lines as they are in the file."""
        try:
            # Opened anew each time: a network disk shows what others wrote when a file is opened.
            with self._path.open("rb", buffering=0) as file:
                if not self._is_same(file):
                    self._begin_anew()
                file.seek(self.offset)
                data = file.read(limit_bytes)
                while (end := data.rfind(b"\n") + 1) == 0 and (more := file.read(limit_bytes)):
                    data += more  # a line longer than the limit
        except FileNotFoundError:
            if self.offset:
                self._begin_anew()
            return b""
        if end:
            self.offset += end
            self._before = data[max(0, end - _REMEMBERED_BYTES) : end]
        return data[:end]

    def _is_same(self, file: FileIO) -> bool:
        """Whether what ends at `offset` is still what was read there."""
        if not self._before:
            return os.fstat(file.fileno()).st_size >= self.offset
        file.seek(self.offset - len(self._before))
        return file.read(len(self._before)) == self._before

    def _begin_anew(self) -> None:
        self.offset, self._before, self.damaged = 0, b"", 0
        self.begun_anew += 1


def parse_event(line: bytes) -> Event | None:
    """The event on a line, without its checksum; None when the line is no event, or was torn or changed.

    Lines of format 1 have no checksum. Of these only what makes them no event any more is noticed.
    """
    sealed = has_checksum(line)
    if sealed and not checksum_holds(line):
        return None
    event = from_line(line)
    if event is None or not isinstance(event.get("seq"), int) or not isinstance(event.get("kind"), str):
        return None
    if not sealed:
        return event if event.get("v", 1) == 1 else None
    del event["crc"]
    return event


def events_on(line: bytes) -> tuple[list[Event], int]:
    """The events on a line and the damage there, 0 or 1. A damaged line may still hold whole ones: where a newline
    was changed, two lines look like one."""
    event = parse_event(line)
    if event is not None:
        return [event], 0
    return [event for part in parts_that_hold(line) if (event := parse_event(part)) is not None], 1


def last_event(path: Path, kind: str | None = None) -> Event | None:
    """The newest event of a journal, or its newest of one kind, found from its end; None when there is none.
    Raises OSError when the journal cannot be read."""
    return _end_of(path, kind)[0]


def _end_of(path: Path, kind: str | None = None) -> tuple[Event | None, bool]:
    """The newest event (of `kind`) and whether the file ends with a whole line."""
    mark = b"" if kind is None else f'"{kind}"'.encode()
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None, True
    with file:
        start = file.seek(0, os.SEEK_END)
        complete = True
        if start:
            file.seek(-1, os.SEEK_END)
            complete = file.read() == b"\n"
        unfinished = b""  # the end of a line whose beginning lies further up
        while start > 0:
            size = min(start, max(_BLOCK_BYTES, len(unfinished)))
            start -= size
            file.seek(start)
            pieces = (file.read(size) + unfinished).split(b"\n")
            unfinished = pieces.pop(0) if start else b""
            # The last piece may be a line that lacks only its newline: it becomes an event once that is written.
            for piece in reversed(pieces):
                if not piece or mark not in piece:
                    continue
                for event in reversed(events_on(piece)[0]):
                    if kind in (None, event["kind"]):
                        return event, complete
    return None, complete
