"""Counting what within a seal tried to get out, so that it can be told without flooding the journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles.problem import printable

# Of the same try by the same process one event a second says enough; of a program gone wild so many kinds.
_TELL_SECONDS = 1.0
_MOST_KINDS = 100
_OTHERS = "other calls"
# Of all kinds together: each event is brought onto the disk, in the journal and in the audit log.
_MOST_EVENTS_PER_SECOND = 10
# After so many of one attempt ten a minute are told, so that the journal grows by little for days on end.
_MOST_EVENTS, _THEN_SECONDS = 1_000, 60.0
_CHARACTERS = 200


@dataclass(slots=True)
class _Kind:
    """Tries of the same call from the same place by processes of the same name."""

    pid: int
    untold: int = 0
    told_at: float | None = None


class WaysOut:
    """The tries of one attempt."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._kinds: dict[tuple[str, str, str], _Kind] = {}
        self._since, self._events, self._events_before = -_TELL_SECONDS, 0, 0

    def add(self, what: str, where: str, process: str, pid: int, count: int = 1) -> None:
        """So many tries. Whoever tried wrote what is told of them: it is taken for text, and for no more."""
        what, where, process = (printable(each, _CHARACTERS) for each in (what, where, process))
        kind = (what, where, process)
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            kind = (_OTHERS, "", "")
        found = self._kinds.setdefault(kind, _Kind(pid))
        found.pid = pid
        found.untold += count

    def due(self, *, everything: bool = False) -> Iterator[dict[str, Any]]:
        """The fields of the `way_out` events that there are to journal now."""
        now = self._clock()
        span = _TELL_SECONDS if self._events_before < _MOST_EVENTS else _THEN_SECONDS
        if now - self._since >= span:
            self._since, self._events = now, 0
        for (what, where, process), kind in self._kinds.items():
            early = kind.told_at is not None and now - kind.told_at < span
            early = early or self._events >= _MOST_EVENTS_PER_SECOND
            if not kind.untold or (early and not everything):
                continue
            self._events += 1
            self._events_before += 1
            count, kind.untold, kind.told_at = kind.untold, 0, now
            yield {
                "what": what,
                "where": where,
                "process": process,
                "pid": kind.pid,
                "count": count,
                "text": _text(what, where, process, kind.pid, count),
            }


def process_name(pid: int) -> str:
    """ "" for one that has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def _text(what: str, where: str, process: str, pid: int, count: int) -> str:
    who = where or (f"{process} (process {pid})" if process else f"process {pid}")
    often = f" {count:,} times" if count > 1 else ""
    return f"{who} tried to get out{often} and was refused: {what}"
