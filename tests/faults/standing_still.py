"""A process that stands still while a test works on what it looks after, so that it does nothing in between."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from waiting import hold

from engine.run.processes.identity import ProcessIdentity


@contextmanager
def standing_still(process: ProcessIdentity) -> Iterator[None]:
    """The process does nothing within the block, and goes on after it."""
    hold(process)
    try:
        yield
    finally:
        process.send(signal.SIGCONT)
