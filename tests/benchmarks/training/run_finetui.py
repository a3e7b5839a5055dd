"""finetui's own recipe, telemetry included, without its supervisor: `run_finetui.py ASSETS full|lora`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from engine.offline import set_offline

set_offline()

import torch  # noqa: E402
from result import Clock, emit  # noqa: E402

from engine.run.creating import create_run  # noqa: E402
from engine.run.processes.channel import MemoryChannel  # noqa: E402
from engine.spec import parse_spec  # noqa: E402
from engine.train.recipe import Recipe  # noqa: E402
from engine.train.setup import build  # noqa: E402


def main(assets: Path, method: str) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    spec = parse_spec(
        {
            "name": "bench",
            "model": {"path": str(assets / "model")},
            "data": {"train": [str(assets / "train.jsonl")], "sequence_length": 512, "held_out_share": 0.0},
            "method": {"kind": method, "rank": 16, "alpha": 32.0},
            "optimizer": {"learning_rate": 1e-4},
            "train": {"micro_batch": 2},
            "evaluation": {"every_steps": 0, "answers": 0},
            "checkpoint": {"every_steps": 0},
        },
        "benchmark",
    )
    setup = build(spec, lambda *_: None)
    channel = MemoryChannel()
    recipe = Recipe(setup, create_run(spec), channel)
    clock = Clock()
    recipe.learn()  # as the peers' train(): no measuring and no saving in the time
    times = clock.read()
    steps = [event for event in channel.events if event["kind"] == "step"]
    emit(
        "finetui",
        sum(step["tokens"] for step in steps),
        times,
        [step["gradient_norm"] for step in steps],
        [step["loss"] for step in steps],
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = home
        main(Path(sys.argv[1]), sys.argv[2])
