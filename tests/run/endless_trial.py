"""The supervisor with a trial of its seal that never comes to an end.

python endless_trial.py RUN_PATH
"""

from __future__ import annotations

import sys

from engine.run import supervisor
from engine.run.sealing import trial


def module_command(module: str, *_: str) -> list[str]:
    return [sys.executable, "-c", "import time; time.sleep(600)", module]


if __name__ == "__main__":
    trial.module_command = module_command
    sys.exit(supervisor.main(sys.argv[1:]))
