"""Runs the scripts beside this file that fork one real run or save after another under a fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import system_calls


def told_by(script: str, folder: Path, *numbers: int) -> list[Any]:
    """What a script beside this file printed for `folder` and `numbers`: a value of JSON in each line. It runs under
    the library that counts its system calls."""
    here = Path(__file__)
    command = [sys.executable, str(here.with_name(script)), str(folder), *map(str, numbers)]
    path = os.pathsep.join([str(here.parents[2]), str(here.parents[1])])
    variables = {"LD_PRELOAD": str(system_calls.library()), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]
