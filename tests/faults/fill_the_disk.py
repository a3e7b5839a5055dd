"""Trains on a small file system, fills it to the last byte while the run goes on, and frees it once the run says so.

python fill_the_disk.py HOME SPEC, a run's spec.toml
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[2]))

from engine.run.directory import RunDirectory
from engine.run.launch import launch
from engine.run.liveness import liveness
from engine.run.processes.worker_process import COMMAND_VARIABLE
from engine.run.summary import summarise
from engine.run.telemetry.reading import read_state
from engine.spec import load_spec

PATIENCE_SECONDS = 200


def wait(run: RunDirectory, condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        alive = liveness(run) == "live"  # before the look: it may end right after what is waited for
        if condition():
            return
        log = run.log_path.read_text()[-3000:]
        assert alive and time.monotonic() < deadline, f"waited in vain for {what}\n{log}"
        time.sleep(0.02)


def fill(path: Path) -> None:
    """Take every byte there is."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def main(home: Path, spec: Path) -> None:
    fifo = spec.with_name("go on")
    os.mkfifo(fifo)
    trainer = shlex.join([sys.executable, str(Path(__file__).with_name("waiting_trainer.py")), str(fifo)])
    os.environ |= {"FINETUI_HOME": str(home), "OMP_NUM_THREADS": "2", "FINETUI_SEAL_WRITE": str(spec.parent)}
    os.environ[COMMAND_VARIABLE] = trainer
    run = launch(load_spec(spec))
    wait(run, lambda: read_state(run).step == 3, "the first steps")
    fill(home / "filler")
    fifo.write_bytes(b"")
    wait(run, lambda: read_state(run).phase == "paused", "the pause")
    print(summarise(run).why)
    assert "free on the disk of runs: free some space, or stop" in summarise(run).why
    (home / "filler").unlink()
    wait(run, lambda: read_state(run).step > 50, "the steps after the pause")
    while liveness(run) == "live":
        time.sleep(0.05)
    state = read_state(run)
    assert state.outcome == "finished", (state.why, run.log_path.read_text()[-3000:])
    assert (run.outputs / "adapter" / "adapter_model.safetensors").is_file()
    print("finished with the disk full for a while")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
