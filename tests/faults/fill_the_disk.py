"""Trains on a small file system, fills it to the last byte while the run goes on, and frees it once the run says so.

python fill_the_disk.py HOME MODEL ROWS
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[1:1] = [str(TESTS.parent), str(TESTS)]

from training import make_spec  # noqa: E402

from engine.run.directory import RunDirectory  # noqa: E402
from engine.run.folding import read_state  # noqa: E402
from engine.run.launch import launch, liveness  # noqa: E402
from engine.run.summary import summarise  # noqa: E402

PATIENCE_SECONDS = 200


def wait(run: RunDirectory, condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        log = run.log_path.read_text()[-3000:]
        assert time.monotonic() < deadline and liveness(run) == "live", f"waited in vain for {what}\n{log}"
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


def main(home: Path, model: Path, rows: Path) -> None:
    os.environ |= {"FINETUI_HOME": str(home), "OMP_NUM_THREADS": "2"}
    spec = make_spec(model, rows, train={"max_steps": 110}, checkpoint={"every_steps": 100})
    run = launch(spec)
    wait(run, lambda: read_state(run).step >= 3, "the first steps")
    fill(home / "filler")
    wait(run, lambda: read_state(run).phase == "paused", "the pause")
    print(summarise(run).why)
    assert "free on the disk of runs: free some space, or stop" in summarise(run).why
    (home / "filler").unlink()
    wait(run, lambda: read_state(run).step > 100, "the steps after the pause")
    while liveness(run) == "live":
        time.sleep(0.05)
    state = read_state(run)
    assert state.outcome == "finished", (state.why, run.log_path.read_text()[-3000:])
    assert (run.outputs / "adapter" / "adapter_model.safetensors").is_file()
    print("finished with the disk full for a while")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
