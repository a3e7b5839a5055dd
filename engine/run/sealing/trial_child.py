"""Prepares and tries the seal of a run's worker: `python -m engine.run.sealing.trial_child RUN LEVEL SUPERVISOR_PID`.

A process of its own, since trying takes a second, a driver may hang, and what it reads the spec with would stay in the
supervisor's memory. On stdout comes one JSON object, its kind "prepared", with
places {read, write, devices}, probes (BatteryResult.as_dict() or null), untried: why there are none; or
refused {where, what, fix}: a layer is missing that the level requires; or
problem {where, what, fix}: the run's settings cannot be used.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.child_process import end_with, take_stdout
from engine.logged_errors import keep_data_out_of_errors, print_error, words_of
from engine.run.directory import RunDirectory
from engine.run.sealing.level import SOCKETS
from engine.run.sealing.places import training_places
from engine.seal.compiling import compile_libraries
from engine.seal.policy.places import Places
from engine.seal.proof.battery import run_battery
from engine.seal.request import LEVELS, Level
from engine.seal.sealing import SealRefused
from profiles.problem import Problem


def main(path: str, level: str, supervisor: str) -> None:
    end_with(int(supervisor))
    # By way of all that was begun, so that what was sealed ends as well.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    keep_data_out_of_errors()
    assert level in LEVELS, level
    send = take_stdout()
    run = RunDirectory(Path(path))
    try:
        places = training_places(run, run.spec())
        if level != "off":
            compile_libraries()
        send("prepared", places=asdict(places), **_tried(places, level))
    except SealRefused as refused:
        send("prepared", refused=refused.as_dict())
    except Problem as problem:
        send("prepared", problem=problem.as_dict())


def _tried(places: Places, level: Level) -> dict[str, Any]:
    """Raises SealRefused."""
    try:
        return {"probes": run_battery(places, level, sockets=SOCKETS).as_dict(), "untried": ""}
    except SealRefused:
        raise
    except Exception as error:  # of the seal itself that says nothing, and it is told that nothing was tried
        print_error(error)
        return {"probes": None, "untried": words_of(error)}


if __name__ == "__main__":
    main(*sys.argv[1:])
