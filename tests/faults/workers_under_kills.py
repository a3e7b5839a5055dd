"""Trains runs whose workers the kernel kills at moments of chance, and compares each end with an undisturbed one's.

python workers_under_kills.py FOLDER KILLS SEED: each spec in FOLDER/specs is trained once, and once more with KILLS
kills. What came of it is a line of JSON. Each attempt is the real worker in a forked process, so that the libraries
are loaded once; nobody restarts it but this script.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from disks_under_faults import ending_of, in_a_worker
from runs_under_faults import end_of

from engine.run.creating import create_run
from engine.run.directory import RunDirectory
from engine.spec import RunSpec, load_spec


class Killed:
    """A run of `spec` whose workers are killed after `longest_seconds` each at most."""

    def __init__(self, spec: RunSpec, longest_seconds: float, generator: random.Random):
        self.run = create_run(spec)
        self._longest_seconds, self._generator = longest_seconds, generator
        self.inside = 0
        """Kills while a checkpoint was written."""

    def kill_one(self) -> bool:
        """Start a worker and kill it at a moment of chance; whether it was alive then."""
        reader, writer = os.pipe()
        after = self._generator.uniform(0.0, self._longest_seconds)
        killer = threading.Thread(target=self._kill_after, args=(reader, after))
        killer.start()
        status, _ = in_a_worker(self.run, lambda: os.write(writer, str(os.getpid()).encode()))
        killer.join()
        os.close(reader)
        os.close(writer)
        return status == -signal.SIGKILL

    def _kill_after(self, reader: int, seconds: float) -> None:
        worker = os.pidfd_open(int(os.read(reader, 20)))
        time.sleep(seconds)
        inside = any(self.run.checkpoints.glob(".staging-*"))
        try:
            signal.pidfd_send_signal(worker, signal.SIGKILL)
        except ProcessLookupError:
            inside = False
        os.close(worker)
        self.inside += inside


def finish(run: RunDirectory) -> None:
    _, told = in_a_worker(run, lambda: None)
    assert ending_of(told)["outcome"] == "finished", ending_of(told)


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    os.environ["FINETUI_HOME"] = str(folder / "home")
    generator = random.Random(seed)
    for path in sorted((folder / "specs").iterdir()):
        spec = load_spec(path)
        alone = create_run(spec)
        began = time.monotonic()
        finish(alone)
        # Together they must not last as long as a whole run, so that there is something to kill each time.
        killed = Killed(spec, 0.9 * (time.monotonic() - began) / kills, generator)
        done = sum(killed.kill_one() for _ in range(kills))
        finish(killed.run)
        exact = end_of(killed.run) == end_of(alone)
        print(json.dumps({"name": path.stem, "kills": done, "inside": killed.inside, "exact": exact}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:]))
