"""A little disk space held in reserve, so that a journal on a full disk can still say that the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

BALLAST_BYTES = 1 << 16
"""Some hundred lines of a journal; a paused run writes one when what is free changes."""


class Ballast:
    """A file of BALLAST_BYTES that can be given up. Nothing here raises: without it the journal waits, as before."""

    def __init__(self, path: Path):
        self._path = path
        self._given_up = False
        self.hold()

    def hold(self) -> None:
        """Take the space, where there is any."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, BALLAST_BYTES)
            finally:
                os.close(descriptor)
            self._given_up = False

    def hold_again(self) -> None:
        """Take the space if it was given up, now that a disk takes records again."""
        if self._given_up:
            self.hold()

    def give_up(self) -> bool:
        """Free the space; False when there was none."""
        try:
            held = self._path.stat().st_size
            self._path.unlink()
        except OSError:
            return False
        self._given_up |= held > 0
        return held > 0
