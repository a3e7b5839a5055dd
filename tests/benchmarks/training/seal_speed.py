"""What the seal costs a training run: the same run, trained by real engines, sealed and not, in turns.

PYTHONPATH=tests python tests/benchmarks/training/seal_speed.py [--rounds 3] [--steps 400]

Tokens a second are those of the journal's steps after the tenth; what a start takes is from the call that launches the
run to its first step. A tiny Llama on one thread: what the seal might add to a system call weighs most there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import tiny  # noqa: E402
from training import make_spec, write_chats  # noqa: E402
from waiting import events_of, wait_until  # noqa: E402

from engine.run.launch import launch  # noqa: E402
from engine.run.liveness import liveness  # noqa: E402
from engine.run.telemetry.reading import read_state  # noqa: E402

_HOUR_SECONDS = 3600.0


def measure(folder: Path, seal: str, steps: int) -> dict[str, float]:
    """Tokens a second of one run, and the seconds that its start took."""
    spec = make_spec(
        folder / "model",
        folder / "rows.jsonl",
        train={"max_steps": steps, "gradient_accumulation": 4, "probe": False},
        privacy={"seal": seal},
    )
    began = time.time()
    run = launch(spec)
    wait_until(lambda: liveness(run) != "live", seconds=_HOUR_SECONDS)
    state = read_state(run)
    assert state.outcome == "finished", state.why
    events = [event for event in events_of(run) if event["kind"] == "step"]
    timed = events[10:]
    tokens_per_second = sum(each["tokens"] for each in timed) / sum(each["seconds"] for each in timed)
    return {"tokens_per_second": tokens_per_second, "start_seconds": events[0]["at"] - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    ratios, later = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FINETUI_HOME"] = str(folder / "home")
        tiny.make_model(folder / "model")
        write_chats(folder / "rows.jsonl", 200)
        measure(folder, "off", 20)  # so that neither finds the caches cold
        for _ in range(arguments.rounds):
            off, sealed = (measure(folder, seal, arguments.steps) for seal in ("off", "best"))
            ratios.append(sealed["tokens_per_second"] / off["tokens_per_second"])
            later.append(sealed["start_seconds"] - off["start_seconds"])
            print(
                f"off {off['tokens_per_second']:,.0f} tokens/s, first step after {off['start_seconds']:.2f} s;  "
                f"sealed {sealed['tokens_per_second']:,.0f}, {sealed['start_seconds']:.2f} s:  {ratios[-1]:.3f} x"
            )
    print(f"median {statistics.median(ratios):.3f} x the speed, {statistics.median(later):+.2f} s to the first step")


if __name__ == "__main__":
    main()
