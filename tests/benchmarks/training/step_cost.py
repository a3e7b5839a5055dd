"""Processor time of a training step of this tree against another's, such as a worktree of an earlier commit.

python tests/benchmarks/training/step_cost.py TREE [--rounds 3]

A tiny Llama, four micro-batches a step, one thread: the loop around the model is a large part of it. Each measurement
is a process of its own; the trees take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_MEASURE = """
import sys, tempfile, time
from pathlib import Path
tree = sys.argv[1]
sys.path[:0] = [tree, tree + "/tests"]
import tiny, torch
from training import build_setup, make_spec, write_chats
try:
    from engine.run.creating import create_run
except ImportError:
    from engine.run.directory import create_run
try:
    from engine.run.processes.channel import MemoryChannel
except ImportError:
    from engine.run.channel import MemoryChannel
from engine.train.recipe import Recipe
import engine
assert engine.__path__[0].startswith(tree)
torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())
spec = make_spec(
    tiny.make_model(folder / "model"),
    write_chats(folder / "rows.jsonl", 200),
    train={"max_steps": 260, "gradient_accumulation": 4, "probe": False},
)
channel, stamps = MemoryChannel(), []
send = channel.send
def told(kind, **fields):
    if kind == "step":
        stamps.append(time.process_time())
    send(kind, **fields)
channel.send = told
Recipe(build_setup(spec), create_run(spec), channel).learn()
took = sorted(after - before for before, after in zip(stamps[10:], stamps[11:]))
print(1000 * took[len(took) // 2])
"""


def measure(tree: Path) -> float:
    """Milliseconds of processor time a step, the median of 250."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "FINETUI_HOME": home}
        command = [sys.executable, "-P", "-c", _MEASURE, str(tree)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ours, theirs = Path(__file__).resolve().parents[3], arguments.tree.resolve()
    ratios = []
    for _ in range(arguments.rounds):
        before, now = measure(theirs), measure(ours)
        ratios.append(now / before)
        print(f"theirs {before:.2f} ms, ours {now:.2f} ms a step: {ratios[-1]:.3f}")
    print(f"median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
