"""The training process: `python -m engine.train.worker RUN`. It may die of anything; the supervisor tells why."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from pathlib import Path

from engine.offline import set_offline

set_offline()  # before anything below imports a library that could call out

from engine.run.channel import Channel  # noqa: E402
from engine.run.directory import RunDirectory  # noqa: E402
from profiles.problem import Problem  # noqa: E402

EXIT_PROBLEM = 2
EXIT_FAULT = 1


def main(arguments: list[str] | None = None) -> int:
    """Train the run in the folder given as the one argument. Returns the exit status."""
    (path,) = arguments if arguments is not None else sys.argv[1:]
    _quiet_libraries()
    run = RunDirectory(Path(path))
    channel = Channel.from_environment()
    channel.install_sigterm()
    try:
        return _train(run, channel)
    except Problem as problem:
        traceback.print_exc()  # engine.log: the place in the code, for whoever wants it
        channel.send("problem", **problem.as_dict())
        channel.send("outcome", outcome="failed", why=f"{problem.where}: {problem.what}", step=None)
        return EXIT_PROBLEM


def _quiet_libraries() -> None:
    """Keep out of engine.log what libraries tell each other: their deprecations, bars, and parts they do without."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _train(run: RunDirectory, channel: Channel) -> int:
    channel.send("phase", phase="preparing", detail="starting the training libraries", done=0, total=0)
    import torch

    from engine.propose import predict
    from engine.train.recipe import Recipe
    from engine.train.setup import build
    from profiles.geometry import read_geometry
    from profiles.hardware import probe

    spec = run.spec()

    def report(phase: str, detail: str, done: int, total: int) -> None:
        channel.send("phase", phase=phase, detail=detail, done=done, total=total)

    try:
        setup = build(spec, report)
        estimate = predict(spec, read_geometry(spec.model.path), probe(run.path))
        channel.send(
            "plan",
            **setup.plan_facts(),
            predicted=dict(estimate.components),
            predicted_peak_bytes=estimate.peak_bytes,
        )
        if setup.dataset.rejects:
            setup.dataset.write_rejects(run.path / "rejects.jsonl")
        for note in setup.dataset.notes:
            channel.send("note", text=note)
        ending = Recipe(setup, run, channel).train()
    except torch.OutOfMemoryError as error:
        raise Problem(
            "GPU memory",
            f"ran out: {str(error).splitlines()[0]}",
            "Halve train.micro_batch and double train.gradient_accumulation, or set train.gradient_checkpointing to 1.",
        ) from error
    channel.send("outcome", outcome=ending.outcome, why=ending.why, step=ending.step)
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except Exception:
        traceback.print_exc()
        status = EXIT_FAULT
    sys.exit(status)
