"""What telemetry costs training: the same steps under the supervisor, journal and all, and with nobody listening.

    python tests/benchmarks/telemetry_cost.py [STEPS]

Runs alternate in fresh worker processes on the bundled model and data, two threads each; the medians of the steps'
own times are compared, after the first ten. Small steps are the hard case: each costs one journal record.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
WARM_STEPS = 10

_ALONE = """
import sys
from pathlib import Path
from engine.offline import set_offline
set_offline()
from engine.run.directory import RunDirectory
from engine.train.recipe import Recipe
from engine.train.setup import build

class Deaf:
    supervisor_gone = False
    def __init__(self): self.seconds = []
    def commands(self): return []
    def send(self, kind, **fields):
        if kind == "step": self.seconds.append(fields["seconds"])

run, deaf = RunDirectory(Path(sys.argv[1])), Deaf()
Recipe(build(run.spec(), lambda *_: None), run, deaf).train()
print(*deaf.seconds)
"""


def main(steps: int) -> None:
    os.environ.update(OMP_NUM_THREADS="2", GOMP_SPINCOUNT="1000")
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = home
        alone, supervised = [], []
        for _ in range(ROUNDS):
            alone.append(_median(_alone(steps)))
            supervised.append(_median(_supervised(steps)))
    for name, medians in (("nobody listens", alone), ("supervised", supervised)):
        print(f"{name:15} median step {', '.join(f'{1000 * value:.2f}' for value in medians)} ms")
    print(f"telemetry costs {100 * (min(supervised) / min(alone) - 1):+.2f} % of a step (best of {ROUNDS} each)")


def _spec(steps: int):
    from tui.commands.demo import demo_spec

    return demo_spec(
        [
            f"train.max_steps={steps}",
            "train.micro_batch=1",
            "evaluation.every_steps=0",
            "evaluation.answers=0",
            "checkpoint.every_steps=0",
        ]
    )


def _alone(steps: int) -> list[float]:
    from engine.modules import module_environment
    from engine.run.creating import create_run

    command = [sys.executable, "-c", _ALONE, str(create_run(_spec(steps)).path)]
    output = subprocess.check_output(command, text=True, env=module_environment(), stderr=subprocess.DEVNULL)
    return [float(word) for word in output.split()]


def _supervised(steps: int) -> list[float]:
    import json

    from engine.run.launch import launch
    from engine.run.liveness import liveness

    run = launch(_spec(steps))
    while liveness(run) == "live":
        time.sleep(0.5)
    events = [json.loads(line) for line in run.events_path.read_text(encoding="utf-8").splitlines()]
    assert events[-1].get("outcome") == "finished", f"see {shlex.quote(str(run.log_path))}"
    return [event["seconds"] for event in events if event["kind"] == "step"]


def _median(seconds: list[float]) -> float:
    return statistics.median(seconds[WARM_STEPS:])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
