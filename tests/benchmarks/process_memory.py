"""Memory of whole training processes on this CPU, predicted and measured: `tests/benchmarks/process_memory.py`.

Real workers train random models of 20 to 150 M parameters for a few steps: trial step, held-out loss, answers,
checkpoints and the tuned model, each run in a FINETUI_HOME of its own, so that nothing was learnt before. One table:
the process as it was predicted and the highest it was seen (anonymous and file pages, less the model's file while it
is read: profiles.memory says why), the phases that these peaks lie in, the trial step's two numbers, and errors.
Takes about twenty minutes on two cores. `--only TEXT` runs the settings with that in their name; `--json FILE` adds a
line for each run to a file; `--phases` shows the highest of each phase.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import select
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from tiny import make_model  # noqa: E402
from training import WORDS, make_spec  # noqa: E402

from engine.propose import predict, settings_of  # noqa: E402
from engine.run.creating import create_run  # noqa: E402
from engine.run.processes.worker_process import WorkerProcess  # noqa: E402
from engine.run.sealing.trial import Prepared  # noqa: E402
from profiles.geometry import read_geometry  # noqa: E402
from profiles.hardware import probe  # noqa: E402
from profiles.memory import MemoryEstimate  # noqa: E402

_MIB = 1 << 20
_STEPS = 3
# Between two looks at the worker: shorter than a layer's backward.
_INTERVAL_SECONDS = 0.004

# family, hidden size, layers, vocabulary, dtype of the file
MODELS: dict[str, tuple[Any, int, int, int, str]] = {
    "llama 27M": ("llama", 512, 8, 16384, "float32"),
    "qwen3 60M": ("qwen3", 640, 12, 24576, "float32"),
    "llama 108M bf16": ("llama", 1024, 10, 24576, "bfloat16"),
    "gemma3 34M": ("gemma3", 512, 8, 32768, "float32"),
    "mistral 146M bf16": ("mistral", 1024, 16, 32768, "bfloat16"),
}


@dataclass(frozen=True)
class Case:
    model: str
    length: int
    method: str = "lora"
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    micro_batch: int = 1
    recompute: int = 0
    accumulate: int = 1
    fitted: bool = True
    """Whether process.py's constants were made to agree with this one; the others are the check."""

    @property
    def name(self) -> str:
        more = [f"{key}={value}" for fields in self.fields.values() for key, value in fields.items()]
        parts = [f"x{self.accumulate}" if self.accumulate > 1 else "", f"rec{self.recompute}" if self.recompute else ""]
        return " ".join([self.model, self.method, f"{self.micro_batch}x{self.length}", *filter(None, parts), *more])


CASES = (
    Case("llama 27M", 512),
    Case("llama 27M", 1024, micro_batch=2, recompute=1),
    Case("llama 27M", 512, "full", micro_batch=4),
    Case("llama 27M", 2048, "full", recompute=1),
    Case("llama 27M", 256, "full", micro_batch=2, recompute=2),
    Case("qwen3 60M", 1024),
    Case("qwen3 60M", 512, "full", accumulate=2),
    Case("qwen3 60M", 512, "qlora", micro_batch=2, recompute=1),
    Case("llama 108M bf16", 512, "partial"),
    Case("llama 108M bf16", 512, "full", recompute=1, fitted=False),
    Case("llama 27M", 2048, recompute=2),
    Case("llama 27M", 1024, "full", micro_batch=2, fitted=False),
    Case("qwen3 60M", 1024, "full", recompute=1),
    Case("qwen3 60M", 256, "partial", micro_batch=4, fitted=False),
    Case("gemma3 34M", 1024, recompute=1, fitted=False),
    Case("gemma3 34M", 512, "full", fitted=False),
    Case("llama 108M bf16", 1024, fitted=False),
    Case("llama 108M bf16", 256, "qlora"),
    Case("llama 108M bf16", 1024, "qlora"),
    Case("llama 27M", 512, "qlora", micro_batch=4),
    Case("mistral 146M bf16", 512, "qlora", recompute=1),
    Case("mistral 146M bf16", 512, "qlora", fitted=False),
    Case("qwen3 60M", 256, "qlora", micro_batch=4, fitted=False),
    Case("gemma3 34M", 1024, "qlora", recompute=1, fitted=False),
    Case("mistral 146M bf16", 256, "full", fitted=False, fields={"optimizer": {"kind": "adamw_8bit"}}),
    Case("mistral 146M bf16", 512, recompute=1, fitted=False),
)


@dataclass
class Measured:
    """What one run took, in bytes."""

    predicted: MemoryEstimate
    phases: dict[str, int]
    """The highest of each phase of the worker, as it was seen."""
    files: dict[str, int]
    """Of that, pages of files."""
    highest: int
    """The kernel's own record of the most that was resident (VmHWM)."""
    told: int
    """The peak that the worker told of itself at the end of its steps."""
    trial: tuple[int, int]
    """Of the trial step: predicted, measured."""
    seconds: float
    step_seconds: float

    @property
    def peak(self) -> int:
        return max(self.phases.values())

    @property
    def phase(self) -> str:
        return max(self.phases, key=self.phases.__getitem__)


def measure(case: Case, model: Path, folder: Path) -> Measured:
    """Run `case` to its end. Raises RuntimeError when it fails."""
    os.environ["FINETUI_HOME"] = str(folder / "home")
    rows = _write_rows(folder / "rows.jsonl", case.length, 4 + _STEPS * case.micro_batch * case.accumulate)
    held_out = _write_rows(folder / "held_out.jsonl", case.length, 2, asked="And")
    sections: dict[str, dict[str, Any]] = {
        "data": {"sequence_length": case.length},
        "method": {"kind": case.method, "rank": 16, "trained_layers": 4},
        "train": {
            "max_steps": _STEPS,
            "micro_batch": case.micro_batch,
            "gradient_accumulation": case.accumulate,
            "gradient_checkpointing": case.recompute,
        },
        "evaluation": {"every_steps": 2, "answers": 2, "max_new_tokens": 16},
        "checkpoint": {"every_steps": 2},
    }
    for section, fields in case.fields.items():
        sections[section] = {**sections.get(section, {}), **fields}
    spec = make_spec(model, rows, held_out, **sections)
    geometry, hardware = read_geometry(model), probe(folder)
    predicted = predict(spec, geometry, hardware)
    assert settings_of(spec, geometry, hardware).device == "cpu"
    return _watch(WorkerProcess(create_run(spec), {}, Prepared("off")), predicted)


def _watch(worker: WorkerProcess, predicted: MemoryEstimate) -> Measured:
    phases: dict[str, int] = {}
    files: dict[str, int] = {}
    events: list[dict[str, Any]] = []
    phase, highest = "starting", 0
    status = Path(f"/proc/{worker.pid}/status")
    began = time.monotonic()
    while not worker.closed:
        if select.select([worker.channel_descriptor], [], [], _INTERVAL_SECONDS)[0]:
            for message in (each.record for each in worker.messages()):
                if message is None:
                    continue
                events.append(message)
                if message["kind"] == "phase":
                    phase = _phase(message)
                elif message["kind"] == "plan":
                    phase = "loaded"
        seen = _pages(status)
        if "VmRSS" not in seen:
            continue
        highest = max(highest, seen.get("VmHWM", 0))
        counted = seen["VmRSS"]
        if phase == "loading":
            counted -= max(0, seen.get("RssFile", 0) - files["preparing"])
        if counted > phases.get(phase, 0):
            phases[phase], files[phase] = counted, seen.get("RssFile", 0)
    seconds = time.monotonic() - began
    worker.wait()
    end = [event for event in events if event["kind"] in ("outcome", "out_of_memory")]
    if not end or end[-1].get("outcome") != "finished":
        raise RuntimeError(str(end))
    trial = next((event for event in events if event["kind"] == "probe"), {"predicted": 0, "measured": 0})
    told = [event["peak_bytes"] for event in events if event["kind"] == "memory"][-1]
    steps = [event["seconds"] for event in events if event["kind"] == "step"]
    return Measured(
        predicted,
        phases,
        files,
        highest,
        told,
        (trial["predicted"], trial["measured"]),
        seconds,
        statistics.median(steps[1:]),
    )


def _phase(message: dict[str, Any]) -> str:
    """The worker's phases, with measurements told apart."""
    detail = message["detail"]
    for word in ("answers", "held-out", "trial"):
        if word in detail:
            return word
    return str(message["phase"])


def _pages(status: Path) -> dict[str, int]:
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    return {
        name: int(value.split()[0]) * 1024
        for name, _, value in (line.partition(":") for line in lines)
        if name in ("VmRSS", "VmHWM", "RssFile")
    }


def _write_rows(path: Path, length: int, rows: int, asked: str = "Well") -> Path:
    """Documents of nearly `length` tokens, each of which fills a sequence, and nearly all of which carry loss."""
    # The tests' tokenizer makes 1.67 tokens of a word here.
    words = length * 4 // 7
    completion = " ".join(WORDS[index % len(WORDS)] for index in range(words))
    lines = [json.dumps({"prompt": f"{asked} {row}?", "completion": completion}) for row in range(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def _print(cases: list[Case], found: list[Measured], show_phases: bool) -> None:
    line = "{:<44} {:>9} {:>9} {:>7} {:>9} {:>8} {:>8} {:>7}  {:<22} {:<10} {:>6} {:>6}"
    heads = ("MiB", "predicted", "measured", "error", "VmHWM", "trial p", "trial m", "error")
    print(line.format(*heads, "predicted in", "seen in", "step s", "run s"))
    for case, row in zip(cases, found, strict=True):
        peak = row.predicted.peak_bytes
        trial, tried = row.trial
        print(
            line.format(
                f"{'' if case.fitted else '* '}{case.name}",
                f"{peak / _MIB:,.0f}",
                f"{row.peak / _MIB:,.0f}",
                f"{peak / row.peak - 1:+.1%}",
                f"{row.highest / _MIB:,.0f}",
                f"{trial / _MIB:,.0f}",
                f"{tried / _MIB:,.0f}",
                f"{trial / tried - 1:+.1%}" if tried else "",
                row.predicted.phase,
                row.phase,
                f"{row.step_seconds:.2f}",
                f"{row.seconds:.0f}",
            )
        )
        if show_phases:
            print("    predicted tensors:", _sizes(row.predicted.phases))
            print("    seen:             ", _sizes(row.phases))
            print("    of it file pages: ", _sizes(row.files))
    for quantised, fitted in itertools.product((False, True), (True, False)):
        name = f"{'QLoRA' if quantised else 'full, partial, LoRA'}, {'fitted' if fitted else 'check (*)'}"
        errors = [
            row.predicted.peak_bytes / row.peak - 1
            for case, row in zip(cases, found, strict=True)
            if (case.fitted, case.method == "qlora") == (fitted, quantised)
        ]
        if errors:
            sizes = [abs(each) for each in errors]
            print(
                f"{name}: {len(errors)} runs, median error {statistics.median(sizes):.1%}, worst {max(sizes):.1%}; "
                f"from {min(errors):+.1%} to {max(errors):+.1%}"
            )


def _sizes(sizes: Any) -> str:
    return ", ".join(f"{name} {size / _MIB:,.0f}" for name, size in sizes.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="settings with this in their name")
    parser.add_argument("--json", type=Path, help="file that gets a line for each run")
    parser.add_argument("--phases", action="store_true", help="the highest of each phase")
    arguments = parser.parse_args()
    cases, found = [], []
    with tempfile.TemporaryDirectory() as scratch:
        models: dict[str, Path] = {}
        for number, case in enumerate(each for each in CASES if arguments.only in each.name):
            if case.model not in models:
                family, hidden, layers, vocab, dtype = MODELS[case.model]
                path = Path(scratch) / case.model.replace(" ", "-")
                models[case.model] = make_model(path, family, hidden, layers, vocab, dtype=dtype, context=4096)
            folder = Path(scratch) / f"run-{number}"
            folder.mkdir()
            row = measure(case, models[case.model], folder)
            cases.append(case)
            found.append(row)
            print(f"{case.name}: {row.seconds:.0f} s", file=sys.stderr)
            if arguments.json:
                with arguments.json.open("a", encoding="utf-8") as file:
                    values = {**row.__dict__, "predicted": row.predicted.as_dict(), "name": case.name}
                    file.write(json.dumps(values) + "\n")
    _print(cases, found, arguments.phases)


if __name__ == "__main__":
    main()
