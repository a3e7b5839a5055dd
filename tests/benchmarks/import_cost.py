"""What a trainer imports before it does anything: beside the same by plain import statements, and beside what any
script with transformers and peft imports. Medians of five interleaved rounds.

    python tests/benchmarks/import_cost.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

ROUNDS = 5
TRAINER = "from engine.train.recipe import Recipe; from engine.train.setup import build"
PROGRAMS = {
    "trainer": f"from engine.swift_imports import swift_imports\nwith swift_imports():\n    {TRAINER}",
    "trainer, plain imports": TRAINER,
    "bare script": "import torch; from transformers import LlamaForCausalLM; from peft import get_peft_model",
}


def start(program: str) -> tuple[float, float, float]:
    """Seconds, seconds of a processor, peak MiB."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, program
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    for program in PROGRAMS.values():
        start(program)  # from disk, and compiled to bytecode
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS):
        for name, program in PROGRAMS.items():
            measured[name].append(start(program))
    medians = {name: tuple(map(statistics.median, zip(*rows, strict=True))) for name, rows in measured.items()}
    ours = medians["trainer"]
    for name, (seconds, processor_seconds, peak_mib) in medians.items():
        ratio = "" if name == "trainer" else f"   the trainer takes {ours[0] / seconds:.2f} x the time"
        print(f"{name:<24} {seconds:5.2f} s   {processor_seconds:5.2f} s of a processor   {peak_mib:4.0f} MiB{ratio}")


if __name__ == "__main__":
    main()
