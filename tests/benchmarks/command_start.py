"""How long commands take to start and answer: `python tests/benchmarks/command_start.py [REPEATS]`.

Printed are the best and median wall time of each command in milliseconds, with ten finished runs in its home.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from engine.demo import MODEL_DIRECTORY, TRAIN_FILE
from engine.run.creating import create_run
from engine.run.telemetry.journal import JournalWriter
from tui.commands.demo import demo_spec

COMMANDS = (
    ("--help",),
    ("--version",),
    ("runs",),
    ("show", "latest"),
    ("watch", "latest"),
    ("hardware",),
    ("inspect", str(MODEL_DIRECTORY)),
    ("inspect", str(TRAIN_FILE)),
)


def make_runs(count: int) -> None:
    """Finished runs of 200 steps in FINETUI_HOME."""
    for _ in range(count):
        run = create_run(demo_spec([]))
        journal = JournalWriter(run.events_path)
        journal.append("attempt", number=1, resumed_from=None, worker_pid=1)
        for step in range(1, 201):
            journal.append(
                "step",
                step=step,
                epoch=step / 200,
                loss=1 / step,
                learning_rate=1e-3,
                gradient_norm=1.0,
                target_tokens=500,
                tokens=2000,
                seconds=0.5,
                memory_bytes=600_000_000,
            )
        journal.append("end", outcome="finished", why="", step=200)
        journal.close()


def measure(arguments: tuple[str, ...]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    devnull = os.open(os.devnull, os.O_WRONLY)
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "tui", *arguments],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, devnull, 1)],
    )
    os.close(devnull)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"finetui {' '.join(arguments)} ended with {status}"
    return time.perf_counter() - began


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = home
        make_runs(10)
        print(f"{'best':>8} {'median':>8}")
        for arguments in COMMANDS:
            seconds = [measure(arguments) for _ in range(repeats)]
            words = " ".join(Path(each).name if "/" in each else each for each in arguments)
            best, median = min(seconds) * 1000, statistics.median(seconds) * 1000
            print(f"{best:5.0f} ms {median:5.0f} ms  finetui {words}")


if __name__ == "__main__":
    main()
