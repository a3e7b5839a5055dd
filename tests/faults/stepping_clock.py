"""The supervisor on a machine whose clock a test sets: the file CLOCK_FILE has the seconds by which it is off.

python stepping_clock.py RUN_PATH [options of engine.run.supervisor]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_real_time = time.time


def stepping_time() -> float:
    return _real_time() + float(Path(os.environ["CLOCK_FILE"]).read_text())


if __name__ == "__main__":
    time.time = stepping_time
    from engine.run import supervisor

    sys.exit(supervisor.main(sys.argv[1:]))
