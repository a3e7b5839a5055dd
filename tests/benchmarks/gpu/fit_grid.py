"""What training really takes on this machine's GPU, setting by setting, beside what was predicted.

    python tests/benchmarks/gpu/fit_grid.py [--models 1b,8b] [--minutes 25] [--output FILE.csv]
    python tests/benchmarks/gpu/fit_grid.py --smoke      the same way through on a CPU, with a tiny model

Models have real shapes and random weights (1B, 3B, 8B, 14B, a mixture of experts); each is built once for each method,
in a process of its own, and takes two optimizer steps of the engine's own code in every setting. Settings that run out
of memory are rows too. Rows go to profiles/catalogue/measured/<gpu>.csv, which later estimates learn from
(profiles/learnt.py), and a table of errors is printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from shapes import SHAPES, SMOKE_SHAPE  # noqa: E402

from engine.fit.memory_rows import Expected, predict_for_tokens  # noqa: E402
from engine.fit.models import find_model  # noqa: E402
from engine.modules import module_environment  # noqa: E402
from profiles.geometry import Geometry  # noqa: E402
from profiles.hardware import probe  # noqa: E402
from profiles.learnt import FORMULA, OUT_OF_MEMORY, model_key  # noqa: E402
from profiles.memory import estimate  # noqa: E402
from profiles.settings import Settings  # noqa: E402

MEASURED = ROOT / "profiles" / "catalogue" / "measured"
COLUMNS = (
    *("device", "capability", "torch", "shape", "model", "formula"),
    *(field.name for field in fields(Settings) if field.name != "device"),
    *("predicted_allocated_bytes", "predicted_process_bytes", "allocated_bytes", "reserved_bytes", "process_bytes"),
    *("tokens_per_second", "outcome"),
)
"""Those that profiles/learnt.py reads, with what a person wants to know beside them."""
# Building 14B random parameters, and 32k tokens through them, take a minute or two at most.
CHILD_SECONDS = 420


def settings_of(method: str, attention: str) -> list[Settings]:
    """The settings that one model and method is measured in, the lightest first."""
    base = Settings(
        method=method,  # type: ignore[arg-type]
        device="cuda",
        compute_dtype="bf16",
        attention=attention,  # type: ignore[arg-type]
        sequence_length=1024,
        optimizer="adamw_8bit" if method == "full" else "adamw",
    )
    recomputing = replace(base, gradient_checkpointing=1)
    varied = [
        recomputing,
        base,
        replace(recomputing, sequence_length=4096),
        replace(base, sequence_length=2048, micro_batch=2),
        replace(recomputing, sequence_length=8192),
        replace(recomputing, sequence_length=32768),
        replace(recomputing, sequence_length=4096, offload_checkpoints=True),
    ]
    if method == "full":
        return [*varied[:4], replace(recomputing, optimizer="adamw"), replace(recomputing, optimizer="adafactor")]
    if method == "partial":
        return varied[:3]
    return [*varied, replace(base, rank=128, dropout=0.05), replace(base, micro_batch=8, gradient_checkpointing=2)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(SHAPES), help="of " + ", ".join(SHAPES))
    parser.add_argument("--methods", default="lora,qlora,full,partial")
    parser.add_argument("--minutes", type=float, default=25, help="no further model is begun after so long")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    hardware = probe(Path.cwd())
    if arguments.smoke:
        return smoke()
    if not hardware.gpus:
        print("There is no GPU here: " + " ".join(hardware.notes), file=sys.stderr)
        return 2
    gpu = hardware.gpus[0]
    attention = "varlen" if gpu.native_bf16 else "sdpa"
    output = arguments.output or MEASURED / f"{re.sub('[^a-z0-9]+', '-', gpu.name.lower()).strip('-')}.csv"
    started, rows = time.monotonic(), []
    for model in arguments.models.split(","):
        for method in arguments.methods.split(","):
            if time.monotonic() - started > arguments.minutes * 60:
                print(f"time is up: {model} {method} was not measured")
                continue
            group = settings_of(method, attention)
            found = measure(model, SHAPES[model], group, "cuda", gpu.capability, gpu.free_bytes)
            rows += [{**row, "device": gpu.name} for row in found]
            write_rows(output, rows)  # after every group: a run that is cut off keeps what it has
    print(f"\n{len(rows)} rows in {output}")
    summarise(rows)
    return 0


def smoke() -> int:
    """Two settings of a tiny model on the CPU: that the way through works, before a GPU is borrowed for it."""
    rows = []
    for method in ("lora", "qlora", "full", "partial"):
        settings = [
            replace(each, device="cpu", compute_dtype="fp32", attention="sdpa", sequence_length=256, optimizer="adamw")
            for each in settings_of(method, "sdpa")[:2]
        ]
        rows += measure("smoke", SMOKE_SHAPE, settings, "cpu", None, 0)
    summarise(rows)
    return 0 if all(row["outcome"] == "ok" for row in rows) else 1


def measure(
    name: str,
    config: dict[str, Any],
    settings: list[Settings],
    device: str,
    capability: tuple[int, int] | None,
    free_bytes: int,
) -> list[dict[str, Any]]:
    """One row for each of `settings` of one model and method, measured in one child process.

    A row that ran out of memory says `free_bytes`: the process wanted more than that.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        geometry = find_model(folder)
        asked = {"config": config, "device": device, "settings": [asdict(each) for each in settings]}
        child = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("measure_group.py"))],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            env=module_environment(),
            timeout=CHILD_SECONDS,
            check=False,
        )
    lines = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
    if child.returncode or len(lines) < len(settings):
        last = child.stderr.strip().splitlines()[-1:] or ["no message"]
        print(f"{name} {settings[0].method}: the measuring process ended with {child.returncode}: {last[0]}")
    rows = []
    for each, measured in zip(settings, lines, strict=False):
        row = row_of(name, geometry, each, capability, measured)
        if row["outcome"] == OUT_OF_MEMORY:
            row["process_bytes"] = free_bytes
        rows.append(row)
        print(line_of(row), flush=True)
    return rows


def row_of(
    name: str, geometry: Geometry, settings: Settings, capability: tuple[int, int] | None, measured: dict[str, Any]
) -> dict[str, Any]:
    estimated = estimate(geometry, settings, capability)
    expected = Expected(geometry, settings, estimated, "")
    predicted = predict_for_tokens(expected, settings.tokens, steps_only=True)  # no answers, no loading from files
    values = asdict(settings)
    values["targets"] = settings.targets if isinstance(settings.targets, str) else " ".join(settings.targets)
    return {
        "capability": ".".join(map(str, capability)) if capability else "",
        "shape": name,
        "model": model_key(geometry),
        "formula": FORMULA,
        **{key: value for key, value in values.items() if key in COLUMNS and key != "device"},
        "predicted_allocated_bytes": predicted.allocated_bytes,
        "predicted_process_bytes": predicted.process_bytes,
        **measured,
    }


def line_of(row: dict[str, Any]) -> str:
    setting = (
        f"{row['shape']:<6}{row['method']:<8}{row['optimizer']:<11}"
        f"{row['sequence_length']:>6} x {row['micro_batch']:<3}"
        f"recompute {row['gradient_checkpointing']}{' offloaded' if row['offload_checkpoints'] else '':<11}"
    )
    if row["outcome"] != "ok":
        return f"{setting} {row['outcome']}, predicted {row['predicted_process_bytes'] / 2**30:.2f} GiB"
    shares = [
        f"{row[measured] / 2**30:7.2f} GiB ({row[predicted] / row[measured] - 1:+.1%})" if row[measured] else ""
        for measured, predicted in (
            ("allocated_bytes", "predicted_allocated_bytes"),
            ("process_bytes", "predicted_process_bytes"),
        )
    ]
    return f"{setting} allocated {shares[0]}  process {shares[1]}  {row['tokens_per_second']:,.0f} tok/s"


def write_rows(output: Path, rows: list[dict[str, Any]]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def summarise(rows: list[dict[str, Any]]) -> None:
    """Median and worst errors, and whether anything that ran out of memory was predicted to fit."""
    for measured, predicted in (
        ("allocated_bytes", "predicted_allocated_bytes"),
        ("process_bytes", "predicted_process_bytes"),
    ):
        errors = [row[predicted] / row[measured] - 1 for row in rows if row["outcome"] == "ok" and row[measured]]
        if errors:
            worst = max(errors, key=abs)
            print(
                f"{measured}: median error {statistics.median(map(abs, errors)):.2%}, worst {worst:+.2%}, "
                f"most under {min(errors):+.2%}, {len(errors)} rows"
            )
    failed = [row for row in rows if row["outcome"] != "ok"]
    print(f"{len(failed)} rows did not run")


if __name__ == "__main__":
    sys.exit(main())
