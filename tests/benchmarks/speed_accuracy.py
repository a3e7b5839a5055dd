"""Predicted against measured speed of real training steps on this CPU: `python tests/benchmarks/speed_accuracy.py`.

First the rates are measured (engine.fit.rates_child, here in this process), then a few random models of 2 to 60 M
parameters train for some steps with the engine's own recipe. One table: tokens/s predicted without and with the
measured rates, measured, and their ratio. Takes about two minutes on two idle cores. A busy machine distorts it:
`--processor-time` then counts the processor time of a single thread, in the rates as in the runs.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import torch  # noqa: E402
from tiny import make_model  # noqa: E402
from training import WORDS, make_spec, train  # noqa: E402

from engine.fit import rates_child  # noqa: E402
from engine.train import metrics  # noqa: E402
from profiles.geometry import read_geometry  # noqa: E402
from profiles.hardware import probe  # noqa: E402
from profiles.settings import Settings  # noqa: E402
from profiles.speed import estimate_speed, rates_of  # noqa: E402

LENGTH = 1024
STEPS = 4
# hidden size, layers, vocabulary
MODELS = {"2M": (192, 4, 4096), "12M": (384, 8, 8192), "52M": (768, 8, 16384)}
PLAIN = Settings(method="lora", device="cpu", compute_dtype="fp32", attention="sdpa", sequence_length=LENGTH)
SETTINGS: tuple[dict[str, object], ...] = (
    {"method": "lora"},
    {"method": "lora", "gradient_checkpointing": 1},
    {"method": "full"},
    {"method": "full", "gradient_checkpointing": 1},
    {"method": "full", "micro_batch": 2, "gradient_accumulation": 2},
    {"method": "partial"},
    {"method": "qlora"},
)


def write_rows(path: Path, rows: int) -> Path:
    """Rows of nearly LENGTH tokens, of which nearly all carry loss: each fills one sequence."""
    # The tests' tokenizer makes 1.67 tokens of a word here.
    completion = " ".join(WORDS[index % len(WORDS)] for index in range(LENGTH * 4 // 7))
    path.write_text("".join(json.dumps({"prompt": f"{row}?", "completion": completion}) + "\n" for row in range(rows)))
    return path


def measured_speed(model: Path, rows: Path, settings: Settings) -> tuple[float, float]:
    """(tokens per second, share of tokens that carry loss) of a run's steps after the first."""
    spec = make_spec(
        model,
        rows,
        data={"sequence_length": LENGTH},
        method={"kind": settings.method, "rank": settings.rank},
        train={
            "epochs": 10.0,
            "max_steps": STEPS,
            "micro_batch": settings.micro_batch,
            "gradient_accumulation": settings.gradient_accumulation,
            "gradient_checkpointing": settings.gradient_checkpointing,
        },
    )
    steps = [event for event in train(spec)[1] if event["kind"] == "step"][1:]
    tokens, targets = sum(each["tokens"] for each in steps), sum(each["target_tokens"] for each in steps)
    return statistics.median(each["tokens"] / each["seconds"] for each in steps), targets / tokens


def count_processor_time() -> None:
    torch.set_num_threads(1)
    clock = SimpleNamespace(**dict.fromkeys(("monotonic", "perf_counter", "process_time"), time.process_time))
    rates_child.time = metrics.time = clock  # type: ignore[assignment]


def main() -> None:
    if "--processor-time" in sys.argv:
        count_processor_time()
    hardware = replace(probe(Path.cwd()), gpus=())
    rates = rates_child.measure("cpu")
    print(json.dumps(rates))
    guessed, measured_rates = rates_of(hardware), rates_of(hardware, rates)
    print(f"{'model':6}{'settings':58}{'guessed':>10}{'predicted':>10}{'measured':>10}{'ratio':>8}")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FINETUI_HOME"] = folder
        rows = write_rows(Path(folder) / "rows.jsonl", 64)
        for name, (hidden, layers, vocab) in MODELS.items():
            model = make_model(Path(folder) / name, hidden=hidden, layers=layers, vocab=vocab)
            geometry = read_geometry(model)
            for changes in SETTINGS if name != "52M" else SETTINGS[:4:2]:
                settings = replace(PLAIN, **changes)  # type: ignore[arg-type]
                measured, targets = measured_speed(model, rows, settings)
                predicted = estimate_speed(geometry, settings, measured_rates, targets)
                unmeasured = estimate_speed(geometry, settings, guessed, targets)
                ratios.append(predicted.tokens_per_second / measured)
                words = ", ".join(f"{key} {value}" for key, value in changes.items()).removeprefix("method ")
                print(
                    f"{name:6}{words:58}{unmeasured.tokens_per_second:10,.0f}{predicted.tokens_per_second:10,.0f}"
                    f"{measured:10,.0f}{ratios[-1]:8.2f}  {predicted.reason}",
                    flush=True,
                )
    print(f"predicted / measured: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
