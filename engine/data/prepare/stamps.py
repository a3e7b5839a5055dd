"""Which chunks a file had when it was last cut, so that a file that was not touched since need not be read again.

A file counts as untouched while device, inode, size and both times of change are the same, as for git and make.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.data.prepare.recipe import code_fingerprint
from engine.data.source import Source
from engine.run.durable_files import write_atomically

# A file written within this time may be written again without its times of change telling.
_SETTLED_SECONDS = 2.0


def stamp_of(source: Source) -> list[int] | None:
    """What changes when the file does; None for folders, and for files that were written just now."""
    try:
        found = source.path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode) or time.time() - found.st_mtime < _SETTLED_SECONDS:
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def remember(root: Path, source: Source, stamp: list[int] | None, cut: dict[str, Any]) -> None:
    """Keep how `source` was `cut` (JSON) while it had `stamp`. A full disk costs the next caller time alone."""
    if stamp is not None and stamp == stamp_of(source):
        path = _path(root, source)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps({"stamp": stamp, "cut": cut}).encode())


def recall(root: Path, source: Source) -> dict[str, Any] | None:
    """How `source` was cut when it was as it is now; None where that is not known."""
    stamp = stamp_of(source)
    with suppress(OSError, ValueError, KeyError, TypeError):  # gone, or damaged
        kept = json.loads(_path(root, source).read_bytes())
        if stamp is not None and kept["stamp"] == stamp:
            os.utime(_path(root, source))
            return kept["cut"]
    return None


def _path(root: Path, source: Source) -> Path:
    read_as = [str(source.path.absolute()), source.format, source.encoding, source.delimiter, source.records]
    key = hashlib.blake2b(json.dumps([*read_as, code_fingerprint()]).encode(), digest_size=16).hexdigest()
    return root / "cut" / f"{key}.json"
