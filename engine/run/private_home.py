"""Everything that finetui keeps lies in a few folders; here they are closed to other users, wherever they came from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from engine.home import cache_root, home
from engine.run.private import close, require_own

_FOLDERS = ("runs", "heads", "faults", "measured", "purging")


def guard_home() -> list[Path]:
    """Close finetui's folders to other users; returns those that were open, as an earlier version made them. Raises
    Problem where another user prepared one. What is not there, or cannot be looked at, is passed over: whoever needs it
    tells that."""
    closed = []
    for folder in own_folders():
        with suppress(OSError):
            require_own(folder)
            if close(folder):
                closed.append(folder)
    return closed


def own_folders() -> Iterator[Path]:
    """The folders that only finetui writes to. A folder that FINETUI_HOME names may hold other things, which are not
    ours to close; ours within it are."""
    given = bool(os.environ.get("FINETUI_HOME"))
    if not given:
        yield home()
    yield from (home() / name for name in _FOLDERS)
    yield cache_root()
