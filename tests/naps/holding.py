"""Runs a command while its processes are held for a moment now and then, as a loaded machine holds them.

python tests/naps/holding.py [--mean SECONDS] [--gap SECONDS] -- python -m pytest ...

One to three processes at a time are stopped (SIGSTOP, SIGCONT) for `--mean` seconds in the mean, the next ones `--gap`
after that. Left alone are those that are stopped already, and those that have a use for SIGCONT, as the app has.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

_MOST_SECONDS = 1.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mean", type=float, default=0.12, metavar="SECONDS")
    parser.add_argument("--gap", type=float, default=0.05, metavar="SECONDS")
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    command = subprocess.Popen(asked.command)
    top, family, held = psutil.Process(command.pid), set[psutil.Process](), 0
    while command.poll() is None:
        with suppress(psutil.Error):
            for each in (top, *filter(psutil.Process.is_running, set(family))):  # engines have left their starters
                family.update(each.children(recursive=True))
        family = {each for each in family if each.is_running()}
        count = min(len(family), random.choice([1, 1, 1, 2, 3]))
        chosen = random.sample(sorted(family, key=lambda each: each.pid), count)
        stopped = [each for each in chosen if _stop(each)]
        held += len(stopped)
        time.sleep(min(_MOST_SECONDS, random.expovariate(1 / asked.mean)))
        for each in stopped:
            with suppress(psutil.Error):
                each.resume()
        time.sleep(random.expovariate(1 / asked.gap))
    print(f"held {held:,} times")
    return command.returncode


def _stop(process: psutil.Process) -> bool:
    with suppress(psutil.Error, OSError):
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        hears = caught is not None and int(caught[1], 16) >> (signal.SIGCONT - 1) & 1
        if not hears and process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            process.suspend()
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
