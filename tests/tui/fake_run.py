"""Run folders as the engine would leave them, made up but deterministic: for the app's tests, pictures and benchmark.

As a program it plays a live run: `python tests/tui/fake_run.py ROOT NAME --hz 1 --seconds 60` makes a run folder whose
journal grows, with its lock held, and prints the folder's path first. With --events it takes no steps but appends each
event that it reads from standard input, a JSON object a line, and lets the lock go after an end.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fake_seal import SEAL

STARTED_AT = 1_767_600_000.0
GIB = 1024**3
SOURCES = [
    {"name": "intake.jsonl", "rows": 4571, "tokens": 1_912_400, "repeats": 1.0, "share": 0.712},
    {"name": "phrasebook-of-the-ward-2024.csv", "rows": 312, "tokens": 68_211, "repeats": 7.33, "share": 0.186},
    {"name": "notes", "rows": 96, "tokens": 274_008, "repeats": 1.0, "share": 0.102},
]
PREDICTED = {
    "weights": int(4.6 * GIB),
    "adapters": int(0.35 * GIB),
    "gradients": int(0.35 * GIB),
    "optimizer": int(0.7 * GIB),
    "activations": int(1.3 * GIB),
    "loss": int(0.4 * GIB),
    "context": int(0.6 * GIB),
}
SAMPLES = (
    (
        "Hi, this is Ana Ruiz, born 4 May 1981. The rash on my left arm is back since Tuesday, no fever.",
        '{"name":"Ana Ruiz","born":"1981-05-04","complaint":"rash","where":"left arm","fever":false}',
        "the arm and the the patient is a of the left",
        '{"name":"Ana Ruiz","born":"1981-05-04","complaint":"rash","where":"left arm","fever":false}',
    ),
    (
        "My son Ole (b. 12/09/2015) has had a cough for five days and 38.9 last night. Please call back.",
        '{"name":"Ole","born":"2015-09-12","complaint":"cough","where":null,"fever":true}',
        "Please call the doctor and he is in the the morning of",
        '{"name":"Ole","born":"2015-09-12","complaint":"cough","where":"chest","fever":true}',
    ),
)


def device_event(step: int, gpu: bool) -> dict[str, Any]:
    gpus = [
        {
            "index": 0,
            "name": "RTX 4090",
            "used_bytes": int(8.4 * GIB),
            "total_bytes": 24 * GIB,
            "celsius": 61 + step % 3,
            "watts": 300 + step % 7 * 5,
            "share": 0.97,
        }
    ]
    return {
        "kind": "device",
        "cpu_share": 0.31 + step % 5 / 100,
        "memory_used_bytes": 31 * GIB,
        "memory_total_bytes": 128 * GIB,
        "worker_bytes": int(3.1 * GIB),
        "disk_free_bytes": 812 * GIB,
        "gpus": gpus if gpu else [],
    }


def _by_source(loss: float) -> list[float | None]:
    """A loss for each of SOURCES; the last was not drawn yet."""
    return [round(loss * 0.9, 4), round(loss * 1.4, 4), None]


def step_event(step: int, planned: int, nan_from: int | None = None, mixed: bool = False) -> dict[str, Any]:
    noise = random.Random(step)
    loss = 0.36 + 2.5 * math.exp(-step / (planned * 0.11)) + noise.gauss(0, 0.05)
    warmup = max(1, planned * 3 // 100)
    rate = min(step / warmup, 0.5 + 0.5 * math.cos(math.pi * max(0, step - warmup) / (planned - warmup)))
    return {
        "kind": "step",
        "step": step,
        "epoch": round(step / planned * 2, 3),
        "loss": None if nan_from is not None and step >= nan_from else round(max(0.05, loss), 5),
        "learning_rate": rate * 2e-4,
        "gradient_norm": round(abs(0.8 + noise.gauss(0, 0.15) + 3 * math.exp(-step / 20)), 4),
        "target_tokens": 2900 + noise.randrange(600),
        "tokens": 8192,
        "seconds": round(2.4 + noise.random() * 0.2, 3),
        "memory_bytes": int(8.1 * GIB) + step * 1000,
        **({"source_losses": _by_source(loss)} if mixed else {}),
    }


def events(
    planned: int,
    until: int,
    outcome: str | None,
    gpu: bool = True,
    why: str = "",
    mixed: bool = False,
    then: Iterable[dict[str, Any]] = (),
    seal: dict[str, Any] | None = SEAL,
) -> Iterator[dict[str, Any]]:
    """The events of a run of `planned` steps that came to step `until`, as dicts without v, seq and at; of one that
    learns from SOURCES and measures an accuracy where it is `mixed`; `then` are further events after the last step,
    and `seal` the one that tells of its seal, which runs of an older finetui do not have."""
    if seal is not None:
        yield seal
    yield {"kind": "attempt", "number": 1, "resumed_from": None, "worker_pid": 4242}
    yield {"kind": "phase", "phase": "preparing", "detail": "tokenising 4,812 rows", "done": 4812, "total": 4812}
    yield {
        "kind": "plan",
        "planned_steps": planned,
        "rows_per_step": 8,
        "sequence_length": 1024,
        "train_rows": 4571,
        "held_out_rows": 241,
        "rejected_rows": 3,
        "train_tokens": 1_912_400,
        "target_tokens": 642_000,
        "cut_rows": 12,
        "packing_efficiency": 0.981,
        "total_parameters": 8_190_735_360,
        "trainable_parameters": 87_293_952,
        "device": "cuda" if gpu else "cpu",
        "dtype": "bf16" if gpu else "fp32",
        "attention": "varlen" if gpu else "sdpa",
        "reasons": ["bf16: the device computes it natively"],
        "predicted": PREDICTED,
        "predicted_peak_bytes": sum(PREDICTED.values()),
        **({"sources": SOURCES, "wasted_share": 0.019, "wasted_share_padded": 0.613} if mixed else {}),
    }
    yield {"kind": "note", "text": "3 rows were set aside: rejects.jsonl says why"}
    yield {"kind": "phase", "phase": "loading", "detail": "weights", "done": 4, "total": 4}
    predicted = sum(PREDICTED.values())
    tried = {"predicted": predicted, "measured": int(predicted * 0.98), "allocated": int(predicted * 0.9)}
    yield {"kind": "probe", **tried, "seconds": 2.1, "tokens": 8192}
    yield {"kind": "phase", "phase": "evaluating", "detail": "the base model", "done": 241, "total": 241}
    more = {"metrics": {"accuracy": 0.512}, "source_losses": _by_source(2.871)} if mixed else {}
    before = {"when": "before", "step": 0, "held_out_loss": 2.871, "exact_match": 0.0, "answers": 50}
    yield {"kind": "evaluation", **before, **more}
    yield {"kind": "phase", "phase": "training", "detail": "", "done": 0, "total": 0}
    nan_from = until if outcome == "failed" else None
    for step in range(1, until + 1):
        yield step_event(step, planned, nan_from, mixed)
        if step % 100 == 0:
            held_out = 0.385 + 2.45 * math.exp(-step / (planned * 0.11))
            yield {
                "kind": "evaluation",
                "when": "during",
                "step": step,
                "held_out_loss": round(held_out, 4),
                "exact_match": None,
                "answers": 0,
                **({"metrics": {"accuracy": 0.87}, "source_losses": _by_source(held_out)} if mixed else {}),
            }
            yield {
                "kind": "checkpoint",
                "step": step,
                "bytes": int(0.42 * GIB),
                "seconds": 1.8,
                "best": True,
                "held_out_loss": round(held_out, 4),
            }
        if step == 3:
            measured = {name: int(size * 0.97) for name, size in PREDICTED.items()}
            yield {"kind": "memory", "measured": measured, "peak_bytes": sum(measured.values())}
    yield device_event(until, gpu)
    yield from then
    if outcome == "finished":
        yield {
            "kind": "evaluation",
            "when": "after",
            "step": until,
            "held_out_loss": 0.387,
            "exact_match": 0.94,
            "answers": 50,
        }
        yield {"kind": "output", "name": "adapter", "path": "outputs/adapter"}
    if outcome is not None:
        for index, (prompt, expected, base, tuned) in enumerate(SAMPLES):
            yield {
                "kind": "sample",
                "index": index,
                "prompt": prompt,
                "expected": expected,
                "base": base,
                "tuned": tuned,
            }
    if outcome == "failed":
        yield {
            "kind": "problem",
            "where": f"step {until}",
            "what": "the loss was not a number",
            "fix": "Lower optimizer.learning_rate (it is 2e-4), then start again from the last checkpoint.",
        }
    if outcome is not None:
        yield {"kind": "end", "outcome": outcome, "why": why, "step": until}


STALL = {
    "kind": "stall",
    "seconds": 312.0,
    "usual_seconds": 2.4,
    "phase": "training",
    "process": "sleeps in the kernel (futex_wait_queue), 3 threads, no CPU time for 5 min",
    "stack": [
        'File "engine/train/recipe.py", line 214, in train',
        'File "engine/train/batches.py", line 88, in __next__',
        'File "torch/utils/data/dataloader.py", line 1284, in _get_data',
    ],
    "text": "nothing was heard of the trainer for 5 min 12 s; a step takes 2.4 s",
}
THROTTLE = {"kind": "throttle", "device": "GPU 0", "reason": "heat", "celsius": 91.0, "on": True}
THROTTLE["text"] = "GPU 0 runs slower to protect itself: 91 °C"
NOT_FINITE = {
    "kind": "not_finite",
    "step": 412,
    "what": "loss",
    "rows": ["rows 318 and 1,204 of intake.jsonl", "row 77 of notes"],
    "checkpoint_step": 400,
    "learning_rate": 2e-4,
    "lower_rate": 6.7e-5,
}
NOT_FINITE_END = {  # NAME stands for the run's
    "kind": "end",
    "outcome": "failed",
    "cause": "not_finite",
    "why": "the loss of step 412 is not a number: rows 318 and 1,204 of intake.jsonl, row 77 of notes",
    "remedy": "Go on from step 400 with `finetui resume NAME --learning-rate 6.7e-05`, a third of what it was.",
    "step": 412,
}
RESTART = {
    "kind": "restart",
    "number": 1,
    "cause": "worker_crashed",
    "what": "the trainer crashed (SIGSEGV)",
    "step": 400,
    "text": "the trainer crashed (SIGSEGV); it goes on from step 400 with a new trainer",
}
CONTINUED = {
    "kind": "continued",
    "changes": [{"field": "torch", "was": "2.11.0", "now": "2.12.1"}],
    "text": "continued though torch was 2.11.0, is 2.12.1",
}


def make_run(
    root: Path,
    name: str,
    planned: int = 1200,
    until: int = 412,
    outcome: str | None = None,
    gpu: bool = True,
    why: str = "",
    started_at: float = STARTED_AT,
    method: str = "qlora",
    mixed: bool = False,
    then: Iterable[dict[str, Any]] = (),
    seal: dict[str, Any] | None = SEAL,
) -> Path:
    """A run folder under `root`/runs with spec.toml, events.jsonl and engine.log; `then` are events after its steps.
    Returns its path."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(started_at))
    folder = root / "runs" / f"{stamp}-{name}"
    folder.mkdir(parents=True)
    (folder / "spec.toml").write_text(
        f'name = "{name}"\n[model]\npath = "/models/Qwen3-8B"\n[data]\ntrain = ["/data/intake.jsonl"]\n'
        f'[method]\nkind = "{method}"\n[checkpoint]\nevery_steps = 100\n'
    )
    with (folder / "events.jsonl").open("w") as journal:
        for sequence, event in enumerate(events(planned, until, outcome, gpu, why, mixed, then, seal), start=1):
            at = started_at + 60 + 2.5 * event["step"] if event["kind"] == "step" else started_at + sequence
            line = json.dumps({"v": 1, "seq": sequence, "at": at, **event})
            journal.write(line.replace("NAME", folder.name) + "\n")
    (folder / "engine.log").write_text(
        "14:02:11 supervisor ready, pid 4240\n14:02:13 worker started, pid 4242\n"
        "14:02:19 tokenising 4,812 rows of intake.jsonl\n14:02:24 3 rows set aside, see rejects.jsonl\n"
        "14:02:31 \x1b[32mloaded 291 tensors\x1b[0m\rloaded 291 tensors, 5.1 GiB as nf4\n"
        "14:02:58 held-out loss of the base model: 2.871\n"
    )
    if outcome == "finished":
        (folder / "outputs" / "adapter").mkdir(parents=True)
    return folder


def play(folder: Path, planned: int, from_step: int, hz: float, seconds: float) -> None:
    """Hold the run's lock and append a step and a device event `hz` times a second."""
    lock = (folder / "lock").open("w")
    fcntl.lockf(lock, fcntl.LOCK_EX)
    (folder / "pid.json").write_text(json.dumps({"pid": os.getpid()}))
    print(folder, flush=True)
    journal_path = folder / "events.jsonl"
    sequence = sum(1 for _ in journal_path.open())
    step, until = from_step, time.monotonic() + seconds
    with journal_path.open("a", buffering=1) as journal:
        while time.monotonic() < until:
            time.sleep(1 / hz)
            step += 1
            for event in (step_event(step, planned), device_event(step, True)):
                sequence += 1
                journal.write(json.dumps({"v": 1, "seq": sequence, "at": time.time(), **event}) + "\n")


def play_events(folder: Path, lines: Iterable[str]) -> None:
    """Hold the run's lock and append the events that come, until an end."""
    lock = (folder / "lock").open("w")
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print(folder, flush=True)
    journal_path = folder / "events.jsonl"
    sequence = sum(1 for _ in journal_path.open())
    with journal_path.open("a", buffering=1) as journal:
        for number, line in enumerate(lines, start=sequence + 1):
            event = json.loads(line)
            journal.write(json.dumps({"v": 1, "seq": number, "at": time.time(), **event}) + "\n")
            if event["kind"] == "end":
                return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("name")
    parser.add_argument("--hz", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--at", type=int, default=400, help="the step it is at when it begins")
    parser.add_argument("--events", action="store_true", help="append the events that standard input gives")
    options = parser.parse_args()
    run = make_run(options.root, options.name, planned=options.steps, until=options.at, started_at=time.time())
    if options.events:
        play_events(run, sys.stdin)
    else:
        play(run, options.steps, options.at, options.hz, options.seconds)
