"""The supervisor on a machine whose free RAM a test sets: the file FREE_FILE has the number of bytes.

python supervise.py RUN_PATH [--resume] [--queue]
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

from engine.run import supervisor
from engine.run.directory import runs_root
from engine.run.waiting import queue
from profiles.hardware import Hardware, Ram, probe

TOTAL_BYTES = 64 << 30


def read_hardware() -> Hardware:
    if os.environ.get("HANGING_DRIVER"):
        time.sleep(600)
    free = int(Path(os.environ["FREE_FILE"]).read_text())
    return dataclasses.replace(probe(runs_root()), ram=Ram(TOTAL_BYTES, free), gpus=())


if __name__ == "__main__":
    queue.read_hardware = read_hardware
    queue.LOOK_SECONDS = 0.1
    queue.FIRST_LOOK_SECONDS = 1.0 if os.environ.get("HANGING_DRIVER") else queue.FIRST_LOOK_SECONDS
    queue.SILENT_SECONDS = float(os.environ.get("SILENT_SECONDS", queue.SILENT_SECONDS))
    sys.exit(supervisor.main(sys.argv[1:]))
