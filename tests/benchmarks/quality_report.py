"""How fast the quality report is, and the memory of all its processes, on generated rows.

`python tests/benchmarks/quality_report.py [--rows N] [--words N] [--workers 1 4]`
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import threading
import time
from pathlib import Path

import psutil

from engine.data.quality.options import ReportOptions
from engine.data.quality.report import report
from engine.data.source import Source

_WORDS = [start + middle + end for start in "bdfklmn" for middle in "aeio" for end in ("ran", "sel", "tin")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=80, help="words a row")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FINETUI_HOME"] = folder
        path = Path(folder) / "rows.jsonl"
        _write(path, arguments.rows, arguments.words)
        print(f"{arguments.rows:,} rows, {path.stat().st_size / 2**20:,.0f} MiB")
        for workers in arguments.workers:
            _measure(Source(path), workers)


def _measure(source: Source, workers: int) -> None:
    peak_bytes, looked_seconds, ended = [0], [0.0], threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not ended.wait(0.5):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            peak_bytes[0] = max(peak_bytes[0], total)

    cpu_before = _cpu_seconds()
    thread = threading.Thread(target=watch)
    thread.start()
    started = time.monotonic()
    found = report(
        [source],
        options=ReportOptions(workers=workers),
        progress=lambda _: looked_seconds.__setitem__(0, time.monotonic() - started),
    )
    ended.set()
    thread.join()
    print(
        f"{workers} process(es): {found.rows / found.seconds:,.0f} rows/s, "
        f"{found.rows / (_cpu_seconds() - cpu_before):,.0f} a second of one core's time; comparing took "
        f"{found.seconds - looked_seconds[0]:.1f} s; peak {peak_bytes[0] / 2**20:,.0f} MiB in all processes; "
        f"copies {found.exact.within:,}, near {found.near.within:,}, personal in {found.personal_rows:,}"
    )


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended: what other work on the machine slows down least."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _write(path: Path, rows: int, words: int) -> None:
    chance = random.Random(7)
    before = ""
    with path.open("w") as file:
        for at in range(rows):
            text = " ".join(chance.choices(_WORDS, k=words))
            kind = chance.random()
            if kind < 0.01:
                text = before
            elif kind < 0.02:
                text = before + " indeed"
            elif kind < 0.04:
                text += f". Write to Anna Schmidt, anna{at}@mail.com, +49 30 {chance.randint(10**6, 10**7)}"
            before = text
            file.write(json.dumps({"prompt": text[: len(text) // 3], "completion": text[len(text) // 3 :]}) + "\n")


if __name__ == "__main__":
    main()
