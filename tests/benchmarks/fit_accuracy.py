"""How far the memory estimates are from the truth.

`python tests/benchmarks/fit_accuracy.py [--quick] [--objectives] [--part a|b|c]`

Three parts, one table each, errors of allocated tensor bytes at the peak of a step:
(a) the closed form (profiles.memory) and the replay (engine.fit.replay) against real training steps of small models on
    this CPU, every living storage counted; each model's steps run in a child process of their own;
(b) the closed form against the replay, for models from 1B to 70B on a GPU that need not be there;
(c) the closed form's parts against published measurements of other trainers (fit/published.csv), whose ways of
    training are modelled in fit/published.py; rows that cannot be compared are listed with the reason.
The closed form's phases outside of a step (loading, evaluation, saving) are left out; on a CPU bitsandbytes' optimizers
work in tensors of their own that no hook sees, so with them the optimizer's phase is left out too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parents[1]), str(_HERE)]

from fit import large_models, published, small_models  # noqa: E402
from fit.table import Row, print_part  # noqa: E402

from engine.fit.models import find_model  # noqa: E402
from engine.fit.replay import replay_many  # noqa: E402
from engine.modules import module_environment  # noqa: E402
from profiles.geometry import Geometry  # noqa: E402
from profiles.memory import TRAINING_PHASES, estimate  # noqa: E402
from profiles.settings import Settings  # noqa: E402

_REPLAY_SECONDS = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every fifth or so of the cases")
    parser.add_argument("--part", choices=("a", "b", "c"), help="only this part")
    parser.add_argument("--objectives", action="store_true", help="part (a) of objectives besides next_token alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FINETUI_HOME"] = folder  # nothing known from before, nothing left behind
        if arguments.part in (None, "a"):
            cases = small_models.QUICK if arguments.quick else (*small_models.CASES, *small_models.OBJECTIVES)
            part_a(Path(folder), small_models.OBJECTIVES if arguments.objectives else cases)
        if arguments.part in (None, "b"):
            part_b(Path(folder), large_models.QUICK if arguments.quick else large_models.CASES)
        if arguments.part in (None, "c"):
            part_c(Path(folder))


def part_a(folder: Path, cases: Sequence[small_models.SmallCase]) -> None:
    rows = []
    for model, chosen in _by_model(cases):
        path = folder / f"small {model}"
        measured = _real_steps(path, small_models.CONFIGS[model], chosen)
        geometry = find_model(path)
        replayed = replay_many(geometry, chosen, timeout_seconds=_REPLAY_SECONDS)
        for settings, found, replay in zip(chosen, measured, replayed, strict=True):
            assert replay is not None, "nobody cancels it"
            name = small_models.SmallCase(model, settings).name
            rows.append(Row(name, found, _closed_form(geometry, settings), replay.allocated_bytes))
    print_part("(a) against real steps on this CPU", rows)


def part_b(folder: Path, cases: Sequence[large_models.LargeCase]) -> None:
    rows = []
    for model, chosen in _by_model(cases):
        path = folder / f"large {model}"
        path.mkdir()
        (path / "config.json").write_text(json.dumps({**large_models.CONFIGS[model], "dtype": "bfloat16"}))
        geometry = find_model(path)
        replayed = replay_many(geometry, chosen, timeout_seconds=_REPLAY_SECONDS)
        for settings, replay in zip(chosen, replayed, strict=True):
            assert replay is not None, "nobody cancels it"
            name = large_models.LargeCase(model, settings).name
            rows.append(Row(name, None, _closed_form(geometry, settings), replay.allocated_bytes))
    print_part("(b) closed form against the replay, for a GPU", rows)


def part_c(folder: Path) -> None:
    rows, others = published.compare(folder)
    print_part("(c) against published measurements", rows)
    print("not comparable:")
    for name, reason in others:
        print(f"  {name}: {reason}")


def _by_model(cases: Iterable[Any]) -> list[tuple[str, list[Settings]]]:
    found: dict[str, list[Settings]] = {}
    for case in cases:
        found.setdefault(case.model, []).append(case.settings)
    return list(found.items())


def _closed_form(geometry: Geometry, settings: Settings) -> int:
    """The most that the tensors of a step take, as far as a step shows them."""
    unseen = "optimizer" if settings.device == "cpu" and "8bit" in settings.optimizer else ""
    phases = estimate(geometry, settings).phases
    return max(phases[phase] for phase in TRAINING_PHASES if phase in phases and phase != unseen)


def _real_steps(path: Path, config: dict[str, Any], settings: Sequence[Settings]) -> list[int]:
    """The measured peaks of real steps of a random model, which is left in `path`."""
    request = {"folder": str(path), "config": config, "settings": [asdict(each) for each in settings]}
    child = subprocess.run(
        [sys.executable, str(_HERE / "fit" / "real_step.py")],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=module_environment(),
        check=False,
    )
    if child.returncode:
        raise SystemExit(f"{path.name} failed:\n{child.stderr[-4000:]}")
    return [json.loads(line)["peak_bytes"] for line in child.stdout.splitlines()]


if __name__ == "__main__":
    main()
