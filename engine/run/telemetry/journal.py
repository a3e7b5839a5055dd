"""The journal of a run: events.jsonl, appended to by one writer and followed by any number of readers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from engine.run.telemetry.events import FORMAT_VERSION, Event
from engine.run.telemetry.records import from_line, to_line

# These come often, and a reader sees them without a sync; everything else must outlive a power cut.
_FREQUENT = frozenset({"step", "device", "phase"})
_BLOCK_BYTES = 1 << 16


class JournalWriter:
    """Appends events to a journal, numbered on from where it ended. One writer at a time: the lock sees to it."""

    def __init__(self, path: Path):
        """Open or create the journal at `path`. Raises OSError."""
        last, complete = _end_of(path)
        self._sequence = last["seq"] if last else 0
        self._mid_line = not complete
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, kind: str, **fields: Any) -> Event:
        """Write one event and return it. Raises OSError when it could not be written, and then it does not count."""
        assert not fields.keys() & {"v", "seq", "at"}, f"{kind} sets a field that the journal sets itself"
        event = {
            "v": FORMAT_VERSION,
            "seq": self._sequence + 1,
            "at": round(time.time(), 3),
            "kind": kind,
            **fields,
        }
        line = to_line(event)
        # After a line that broke off (a crash, a full disk) the next begins on a line of its own.
        data = b"\n" + line if self._mid_line else line
        self._mid_line = True
        while data:  # more than once only when the disk is nearly full, to learn why it does not go on
            data = data[os.write(self._descriptor, data) :]
        self._mid_line = False
        self._sequence += 1
        if kind not in _FREQUENT:
            os.fsync(self._descriptor)
        return event

    @property
    def sequence(self) -> int:
        """The number of the last event that was written; 0 before the first."""
        return self._sequence

    def offset(self) -> int:
        """Where the last appended event ends, in bytes; 0 before the first."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def close(self) -> None:
        os.close(self._descriptor)


class JournalTail:
    """Reads a journal from `offset` bytes on, as far as it is there. A last line without its end means "not yet"."""

    def __init__(self, path: Path, offset: int = 0):
        self._path = path
        self.offset = offset
        self.damaged = 0
        """Lines passed over because they are not an event: torn by a crash, or changed by hand."""

    def read(self, limit_bytes: int = 1 << 20) -> list[Event]:
        """The events that came since the last call, from at most `limit_bytes` of the file (or one longer line);
        empty when there is nothing new or no journal yet. Raises OSError when the journal cannot be read."""
        events = []
        for line in self.lines(limit_bytes):
            event = parse_event(line)
            if event is None:
                self.damaged += 1
            else:
                events.append(event)
        return events

    def lines(self, limit_bytes: int = 1 << 20) -> list[bytes]:
        """As `read`, but the bare lines, not looked into."""
        chunk = self.chunk(limit_bytes)
        return [line for line in chunk.split(b"\n") if line]

    def chunk(self, limit_bytes: int = 1 << 20) -> bytes:
        """As `read`, but whole lines as they are in the file."""
        try:
            # Opened anew each time: a network disk shows what others wrote when a file is opened.
            with self._path.open("rb", buffering=0) as file:
                file.seek(self.offset)
                data = file.read(limit_bytes)
                while (end := data.rfind(b"\n") + 1) == 0 and (more := file.read(limit_bytes)):
                    data += more  # a line longer than the limit
        except FileNotFoundError:
            return b""
        self.offset += end
        return data[:end]


def parse_event(line: bytes) -> Event | None:
    """The event on a line, or None when the line is not one."""
    event = from_line(line)
    if event is None or not isinstance(event.get("seq"), int) or not isinstance(event.get("kind"), str):
        return None
    return event


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
                if piece and mark in piece and (event := parse_event(piece)) and kind in (None, event["kind"]):
                    return event, complete
    return None, complete
