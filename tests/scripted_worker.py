"""A worker without a model, for tests of what surrounds the training: it tells the same events, quickly.

`python scripted_worker.py RUN_PATH` takes SCRIPTED_STEPS steps of 20 milliseconds and stops when asked to.
SCRIPTED_END is how it ends: finished (the default), or died, by a signal and without a word.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from engine.run.processes.channel import Channel

STEP_SECONDS = 0.02


def main() -> None:
    steps = int(os.environ.get("SCRIPTED_STEPS", "5"))
    run_path = Path(sys.argv[1])
    channel = Channel.from_environment()
    channel.install_sigterm()
    channel.send(
        "plan",
        planned_steps=steps,
        rows_per_step=4,
        sequence_length=128,
        train_rows=20,
        held_out_rows=2,
        rejected_rows=1,
        train_tokens=2_500,
        target_tokens=1_000,
        cut_rows=0,
        packing_efficiency=0.9,
        total_parameters=3_312_384,
        trainable_parameters=120_000,
        device="cpu",
        dtype="fp32",
        attention="sdpa",
        reasons=["a CPU without native bf16"],
        predicted={"weights": 13_000_000},
        predicted_peak_bytes=700_000_000,
    )
    channel.send("evaluation", when="before", step=0, held_out_loss=2.5, exact_match=0.0, answers=2)
    channel.send("phase", phase="training", detail="", done=0, total=0)
    for step in range(1, steps + 1):
        time.sleep(STEP_SECONDS)
        channel.send(
            "step",
            step=step,
            epoch=step / steps,
            loss=2.5 / step,
            learning_rate=1e-4,
            gradient_norm=1.0,
            target_tokens=100,
            tokens=250,
            seconds=STEP_SECONDS,
            memory_bytes=650_000_000,
        )
        if "stop" in channel.commands():
            channel.send("checkpoint", step=step, bytes=1_000_000, seconds=0.1, best=False, held_out_loss=None)
            channel.send("outcome", outcome="stopped", why=f"after step {step}", step=step)
            return
    if os.environ.get("SCRIPTED_END") == "died":
        os.kill(os.getpid(), signal.SIGKILL)
    adapter = run_path / "outputs" / "adapter"
    adapter.mkdir(parents=True)
    channel.send("checkpoint", step=steps, bytes=1_000_000, seconds=0.1, best=True, held_out_loss=0.4)
    channel.send("evaluation", when="after", step=steps, held_out_loss=0.4, exact_match=1.0, answers=2)
    channel.send("sample", index=0, prompt="I need a refill.", expected='{"a":1}', base="no", tuned='{"a":1}')
    channel.send("output", name="adapter", path="outputs/adapter")
    channel.send("outcome", outcome="finished", why="", step=steps)


if __name__ == "__main__":
    main()
