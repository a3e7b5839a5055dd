"""What a plan costs: points priced, milliseconds and microseconds per point, the first time for a shape and later.

    python tests/benchmarks/planner_speed.py [--repeats 7]

"first" builds the shape's sums as `finetui fit` does when it starts; "again" is the median of several, as when a
setting is moved. "grid" is how many points the priced ones decide. The last lines are the two wider views.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from engine.demo import MODEL_DIRECTORY, TRAIN_FILE
from engine.propose import gather, propose_from
from profiles.hardware import Hardware, probe
from profiles.hardware_file import hypothetical, with_vram
from profiles.machine.gpu_catalogue import all_gpus
from profiles.model_catalogue import catalogue_geometry, catalogue_models
from profiles.planner import Job, ladder, plan, price
from profiles.planning.recipes import built_in_recipes

GIB = 1 << 30
MODELS = (
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-32B",
    "meta-llama/Llama-3.1-70B",
    "mistralai/Mixtral-8x7B-v0.1",
)
JOB = Job(rows=4_812, tokens=1_900_000, longest_tokens=1_900, usual_tokens=1_200, answer_tokens=300)


def milliseconds(act: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)


def print_plans(card: Hardware, repeats: int) -> None:
    print(
        f"{'model':30}{'GiB':>5}{'points':>8}{'grid':>8}{'first ms':>10}{'again ms':>10}{'us each':>9}{'price ms':>10}"
    )
    for name in MODELS:
        geometry = catalogue_geometry(name)
        for gib in (8, 24, 80):
            machine = with_vram(card, gib * GIB)
            first = plan(geometry, machine, JOB, recipes=built_in_recipes())
            again = milliseconds(lambda g=geometry, m=machine: plan(g, m, JOB, recipes=built_in_recipes()), repeats)
            moved = milliseconds(lambda p=first: price(p, {"method.kind": "qlora", "method.rank": 24}), repeats)
            print(
                f"{name:30}{gib:>5}{first.points_priced:>8,}{first.grid_points:>8,}{first.seconds * 1000:>10.1f}"
                f"{again:>10.1f}{1000 * again / first.points_priced:>9.1f}{moved:>10.2f}"
            )


def print_views(card: Hardware) -> None:
    geometry, known = catalogue_geometry("Qwen/Qwen3-8B"), {}
    cards = [hypothetical(gpu.name) for gpu in all_gpus()]
    taken = milliseconds(lambda: [ladder(geometry, each, JOB, known=known) for each in cards], 1)
    print(f"which card: {len(cards)} cards in {taken:,.0f} ms")
    geometries = [catalogue_geometry(model.name) for model in catalogue_models()]
    for when in ("first", "again"):
        taken = milliseconds(lambda: [ladder(each, card, JOB) for each in geometries], 1)
        print(f"what could I train: {len(geometries)} models in {taken:,.0f} ms ({when})")


def print_proposals(repeats: int) -> None:
    gathered = gather(MODEL_DIRECTORY, [TRAIN_FILE], None, probe(Path()))
    for overrides in ({}, {"method": {"rank": 64}}, {"method": {"kind": "full"}}):
        taken = milliseconds(lambda o=overrides: propose_from(gathered, o), repeats)
        print(f"propose_from on the bundled model, {overrides or 'nothing changed'}: {taken:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    print_plans(hypothetical("RTX 4090"), arguments.repeats)
    print_views(hypothetical("RTX 4090"))
    print_proposals(arguments.repeats)
