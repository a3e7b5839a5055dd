"""The supervisor with less patience than usual, on a slow disk.

python flooded.py RUN_PATH

FLOOD_LIMITS has {"OFTEN" | "SAVES" | "SELDOM": [at once, per second, most messages]} in place of an allowance's own;
SLOW_SYNC_SECONDS is what the disk takes for each event that is brought onto it.
"""

from __future__ import annotations

import json
import os
import sys
import time

from engine.run import supervisor
from engine.run.processes import allowance
from engine.run.telemetry.journal import JournalWriter


def slow_sync(_: JournalWriter) -> None:
    time.sleep(float(os.environ.get("SLOW_SYNC_SECONDS", "0")))


if __name__ == "__main__":
    for group, limit in json.loads(os.environ.get("FLOOD_LIMITS", "{}")).items():
        usual = getattr(allowance, group)
        less = allowance.Limits(allowance.Limit(*limit), usual.bytes)
        setattr(allowance, group, less)
        allowance.LIMITS |= {kind: less for kind, limits in allowance.LIMITS.items() if limits is usual}
    JournalWriter._sync = slow_sync  # type: ignore[method-assign]
    sys.exit(supervisor.main(sys.argv[1:]))
