"""What an engine costs while its trainer works: processor time and memory of the supervisor and of what it starts.

PYTHONPATH=tests python tests/benchmarks/engine_cost.py [--seconds 60]

A trainer that does nothing but tell of a step each second stands in for the real one, whose own cost is not meant.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

import psutil  # noqa: E402

from engine.run.control import ask  # noqa: E402
from engine.run.launch import launch  # noqa: E402
from engine.run.processes.worker_process import COMMAND_VARIABLE  # noqa: E402
from engine.run.telemetry.reading import read_state  # noqa: E402
from engine.spec import parse_spec  # noqa: E402

# Until the imports of the child that reads the devices are over.
_SETTLING_SECONDS = 5.0


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FINETUI_HOME"] = folder
        fake = REPOSITORY / "tests" / "run" / "fake_worker.py"
        script = json.dumps([["train", 10_000, 1.0]])
        os.environ[COMMAND_VARIABLE] = shlex.join([sys.executable, str(fake), script])
        spec = {"name": "cost", "model": {"path": "/models/base"}, "data": {"train": ["/data/train.jsonl"]}}
        began = time.perf_counter()
        run = launch(parse_spec(spec, "the benchmark"))
        launched = time.perf_counter() - began
        while not read_state(run).step:
            time.sleep(0.005)
        print(
            f"launch returned after {launched:.2f} s, the first step was told after {time.perf_counter() - began:.2f}"
        )
        status = ask(run, "status")
        time.sleep(_SETTLING_SECONDS)
        supervisor = psutil.Process(status["pid"])
        family = [supervisor, *(child for child in supervisor.children() if child.pid != status["worker_pid"])]
        before = [cpu_seconds(each) for each in family]
        time.sleep(seconds)
        for name, each, then in zip(("supervisor", "device child"), family, before, strict=True):
            memory = each.memory_full_info()
            hourly = (cpu_seconds(each) - then) / seconds * 3600
            print(f"{name:<14} {hourly:5.1f} s of a processor an hour, {memory.rss / 2**20:.1f} MiB", end="")
            print(f" ({memory.uss / 2**20:.1f} of its own)")
        ask(run, "kill")
        supervisor.wait()


if __name__ == "__main__":
    main()
