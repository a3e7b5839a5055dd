"""How long a journal of a million steps takes to open: `python tests/benchmarks/journal_open.py [STEPS]`.

The journal is written as a supervisor writes it, with what comes between the steps of a long run: a device reading
every third step, held-out losses, checkpoints. Printed are its size, the time of `read_state` (median and best of
five), and the time of folding every event one by one.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.run.directory import RunDirectory
from engine.run.telemetry.checksum import with_checksum
from engine.run.telemetry.events import FORMAT_VERSION, RunState
from engine.run.telemetry.folding import fold
from engine.run.telemetry.journal import JournalTail
from engine.run.telemetry.reading import open_journal, read_state
from engine.run.telemetry.records import to_line
from engine.run.telemetry.snapshot import save_snapshot


def write_journal(path: Path, steps: int) -> None:
    """A journal of `steps` steps at `path`, in the supervisor's form, from one seed."""
    chance = random.Random(0)
    sequence = 0
    seconds_total = 0.0
    with path.open("wb") as file:

        def put(kind: str, **fields: Any) -> None:
            nonlocal sequence
            sequence += 1
            at = round(1.75e9 + sequence * 0.3, 3)
            event = {"v": FORMAT_VERSION, "seq": sequence, "at": at, "kind": kind, **fields}
            file.write(with_checksum(to_line(event)))

        put("attempt", number=1, resumed_from=None, worker_pid=1)
        put("plan", planned_steps=steps)
        for step in range(1, steps + 1):
            seconds = round(chance.uniform(0.2, 0.4), 6)
            seconds_total = round(seconds_total + seconds, 6)
            put(
                "step",
                step=step,
                epoch=step / steps,
                loss=None if step == steps // 3 else 2 / (1 + step / steps) + chance.gauss(0, 0.1),
                learning_rate=2e-4 * (1 - step / steps),
                gradient_norm=chance.lognormvariate(0, 0.3),
                target_tokens=chance.randrange(500, 1000),
                tokens=1024,
                seconds=seconds,
                memory_bytes=7_900_000_000,
                tokens_seen=step * 1024,
                training_seconds=seconds_total,
            )
            if step % 3 == 0:
                gpu = {
                    "index": 0,
                    "name": "GPU",
                    "used_bytes": 7 << 30,
                    "total_bytes": 24 << 30,
                    "share": chance.random(),
                }
                put(
                    "device",
                    cpu_share=chance.random(),
                    memory_used_bytes=8 << 30,
                    memory_total_bytes=32 << 30,
                    gpus=[gpu],
                )
            if step % 500 == 0:
                put(
                    "evaluation",
                    when="during",
                    step=step,
                    held_out_loss=chance.random(),
                    exact_match=None,
                    answers=0,
                )
                put("checkpoint", step=step, bytes=1 << 20, seconds=0.1, best=False, held_out_loss=None)


def timed(work: Callable[[], RunState]) -> tuple[float, RunState]:
    start = time.perf_counter()
    state = work()
    return time.perf_counter() - start, state


def fold_all(run: RunDirectory) -> RunState:
    tail = JournalTail(run.events_path)
    return fold(event for events in iter(tail.read, []) for event in events)


def tell(what: str, seconds: list[float]) -> None:
    print(f"{what}: median {statistics.median(seconds):.3f} s, best {min(seconds):.3f} s")


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        write_journal(run.events_path, steps)
        size = run.events_path.stat().st_size
        opened = [timed(lambda: read_state(run)) for _ in range(5)]
        print(f"{steps:,} steps, {size / 2**20:,.0f} MiB")
        tell("read_state, of the whole journal", [each for each, _ in opened])
        folding, tail = open_journal(run)
        kept = folding.state()
        save_snapshot(run, kept, folding.recent, tail.offset)
        kept_size = run.snapshot_path.stat().st_size
        reopened = [timed(lambda: read_state(run)) for _ in range(5)]
        tell(
            f"read_state, with the supervisor's snapshot ({kept_size / 1024:,.0f} KiB)",
            [each for each, _ in reopened],
        )
        assert all(state == opened[0][1] for _, state in reopened)
        every_seconds, every_state = timed(lambda: fold_all(run))
        same = "the same state" if every_state == opened[0][1] else "ANOTHER STATE"
        print(f"fold of every event: {every_seconds:.1f} s, {same}")


if __name__ == "__main__":
    main()
