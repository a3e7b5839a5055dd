"""Runs in this process for the tests of training: a spec from a few words, the recipe, and what it told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.offline import set_offline

set_offline()

import torch  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402

from engine.run.creating import create_run  # noqa: E402
from engine.run.directory import RunDirectory  # noqa: E402
from engine.run.processes.channel import MemoryChannel  # noqa: E402
from engine.spec import RunSpec, parse_spec  # noqa: E402
from engine.train.recipe import Recipe  # noqa: E402
from engine.train.setup import Setup, build  # noqa: E402

WORDS = (
    *("the", "fever", "came", "on", "monday", "after", "rain", "and", "bread"),
    *("in", "a", "long", "street", "nobody", "owns", "an", "umbrella", "there"),
)


def write_chats(path: Path, rows: int, seed: int = 0, longest: int = 30) -> Path:
    """`rows` chat rows of skewed lengths; the answer is a function of the question, so that it can be learned."""
    generator = torch.Generator().manual_seed(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            length = 2 + int(longest * float(torch.rand((), generator=generator)) ** 3)
            words = [WORDS[int(i)] for i in torch.randint(len(WORDS), (length,), generator=generator)]
            messages = [
                {"role": "user", "content": " ".join(words)},
                {"role": "assistant", "content": f"{words[-1]} {words[0]}"},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def make_spec(model: Path, rows: Path, held_out_rows: Path | None = None, **sections: dict[str, Any]) -> RunSpec:
    """A quick spec: no answers, no evaluation on the way, every field of `sections` on top."""
    values: dict[str, Any] = {
        "name": "test",
        "model": {"path": str(model)},
        "data": {"train": [str(rows)], "sequence_length": 128, "held_out_share": 0.0},
        "method": {"kind": "lora", "rank": 4, "alpha": 8.0},
        "optimizer": {"learning_rate": 1e-3},
        "evaluation": {"every_steps": 0, "answers": 0},
        "checkpoint": {"every_steps": 0},
    }
    if held_out_rows is not None:
        values["data"]["held_out"] = str(held_out_rows)
    for name, fields in sections.items():
        values[name] = {**values.get(name, {}), **fields}
    return parse_spec(values, "test spec")


class StoppingChannel(MemoryChannel):
    """Collects what is told, and asks to stop once step `stop_after` was told."""

    def __init__(self, stop_after: int | None = None):
        super().__init__()
        self.stop_after = stop_after

    def commands(self) -> list[str]:
        steps = [event["step"] for event in self.events if event["kind"] == "step"]
        return ["stop"] if self.stop_after is not None and steps and steps[-1] >= self.stop_after else []


def build_setup(spec: RunSpec) -> Setup:
    """The setup of `spec`; accelerate's one state per process is forgotten first."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return build(spec, lambda phase, detail, done, total: None)


def train(
    spec: RunSpec, run: RunDirectory | None = None, stop_after: int | None = None
) -> tuple[RunDirectory, list[dict[str, Any]]]:
    """Train `spec` in a new run folder (or go on in `run`). Returns the folder and all events."""
    run = run or create_run(spec)
    channel = StoppingChannel(stop_after)
    Recipe(build_setup(spec), run, channel).train()
    return run, channel.events


def losses(events: list[dict[str, Any]]) -> list[float]:
    return [event["loss"] for event in events if event["kind"] == "step"]
