"""Trains a run whose disk is full for a moment at one system call after another, and looks at what becomes of it.

python disks_under_faults.py FOLDER EVERY SHARE SHARES, started with the library of system_calls.c: every EVERY-th call
is tried, of those the SHARE-th of SHARES. What came of each is a line of JSON. Each attempt is the real worker in a
forked process, so that the libraries are loaded once; nobody restarts it.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import system_calls  # noqa: E402
import torch  # noqa: E402
from runs_under_faults import a_spec, end_of  # noqa: E402

import engine.train.disk_wait  # noqa: E402
from engine.run.creating import create_run  # noqa: E402
from engine.run.directory import RunDirectory  # noqa: E402
from engine.run.processes.channel import CHANNEL_VARIABLE  # noqa: E402
from engine.run.telemetry.records import from_line  # noqa: E402
from engine.train import worker  # noqa: E402

# Calls that are refused one after another: a file is written in a few of them, and the next one finds room again.
TIMES = 3


def in_a_worker(run: RunDirectory, prepare: Callable[[], object]) -> tuple[int, list[dict[str, Any]]]:
    """The exit status of a worker that trains `run`, and all it told. `prepare` is called in its process before."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if not (child := os.fork()):
        ours.close()
        os.environ[CHANNEL_VARIABLE] = str(theirs.fileno())
        prepare()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 2)
        try:
            status = worker.main([str(run.path)])
        except BaseException:
            status = worker.EXIT_FAULT
        os._exit(status)
    theirs.close()
    with ours, ours.makefile("rb") as told:
        messages = [message for line in told if (message := from_line(line)) is not None]
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), messages


def trial(folder: Path, run: RunDirectory, at: int) -> tuple[dict[str, Any], int]:
    """What becomes of `run` whose `at`-th call finds the disk full, and how many calls there were."""
    counter, log = folder / f"calls-{os.getpid()}", folder / f"log-{os.getpid()}"
    for path in (counter, log):
        path.unlink(missing_ok=True)
    home = Path(os.environ["FINETUI_HOME"])
    variables = system_calls.environment(home, at, errno.ENOSPC, count_to=counter, times=TIMES, log_to=log)
    status, told = in_a_worker(run, lambda: system_calls.arm_this_process(variables))
    calls = system_calls.logged(log)
    call = " ".join(calls[at - 1][:2]).replace(str(home), "~") if at <= len(calls) and at else ""
    return {"at": at, "call": call, "status": status, **ending_of(told)}, len(calls)


def ending_of(told: list[dict[str, Any]]) -> dict[str, Any]:
    """How a worker said that it ended, and how many problems it told."""
    outcome: dict[str, Any] = next((each for each in reversed(told) if each["kind"] == "outcome"), {})
    fields = {name: outcome.get(name) for name in ("outcome", "cause", "why", "remedy")}
    return {"problems": Counter(each["kind"] for each in told)["problem"], **fields}


def main(folder: Path, every: int, share: int, shares: int) -> None:
    torch.set_num_threads(1)
    engine.train.disk_wait.ROOM_INTERVAL_SECONDS = engine.train.disk_wait.REFUSED_INTERVAL_SECONDS = 0.01
    os.environ["FINETUI_HOME"] = str(folder / f"home-{share}")
    folder = folder / f"given-{share}"
    folder.mkdir()
    spec = a_spec(folder)
    alone = create_run(spec)
    undisturbed, calls = trial(folder, alone, 0)
    assert undisturbed["outcome"] == "finished", undisturbed
    for at in range(1 + share * every, calls + 1, every * shares):
        run = create_run(spec)
        # What an earlier run prepared is not to be found, so that its writing is tried as well.
        for kept in Path(os.environ["FINETUI_HOME"]).glob("*/"):
            if kept.name != "runs":
                kept.rename(folder / f"old-{at}-{kept.name}")
        first, _ = trial(folder, run, at)
        if first["outcome"] != "finished":
            trial(folder, run, 0)
        print(json.dumps(first | {"exact": end_of(run) == end_of(alone)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:]))
