"""The training process: `python -m engine.train.worker RUN`. It may die of anything; the supervisor tells why."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.offline import set_offline

set_offline()  # before anything below imports a library that could call out

from engine.logged_errors import keep_data_out_of_errors, print_error  # noqa: E402
from engine.run.circumstances import BaseReading, goes_on_anyway  # noqa: E402
from engine.run.directory import RunDirectory  # noqa: E402
from engine.run.endings.adjusted import adjusted_from_environment, adjusted_spec  # noqa: E402
from engine.run.endings.causes import CausedProblem, Ending  # noqa: E402
from engine.run.endings.errors import ending_of_error  # noqa: E402
from engine.run.endings.exhaustion import shortage, where_it_ran_out  # noqa: E402
from engine.run.processes.channel import Channel  # noqa: E402
from engine.run.processes.identity import ProcessIdentity  # noqa: E402
from engine.run.processes.leash import Leash  # noqa: E402
from engine.run.sealing.level import SOCKETS  # noqa: E402
from engine.run.sealing.lines import tell_from_environment  # noqa: E402
from engine.run.watching.stacks import register_stacks  # noqa: E402
from engine.swift_imports import swift_imports  # noqa: E402
from profiles.ladder import ANSWER_BATCH, EVALUATION_TOKENS, USUAL_ANSWER_BATCH  # noqa: E402
from profiles.problem import Problem  # noqa: E402

if TYPE_CHECKING:
    from engine.fit.memory_rows import Expected
    from engine.train.setup import Setup

EXIT_FAULT = 1
EXIT_PROBLEM = 2
EXIT_OUT_OF_MEMORY = 3
EXIT_DEVICE = 4


def main(arguments: list[str] | None = None) -> int:
    """Train the run in the folder given as the one argument. Returns the exit status."""
    (path,) = arguments if arguments is not None else sys.argv[1:]
    keep_data_out_of_errors()
    _guard()
    _quiet_libraries()
    run = RunDirectory(Path(path))
    channel = Channel.from_environment()
    channel.install_sigterm()
    register_stacks()
    attempt = _Attempt(run, channel, adjusted_from_environment(), Leash.from_environment())
    try:
        attempt.train()
    except _StoppedBefore:
        why = "before any step was taken; what was prepared is kept for the next start"
        channel.send("outcome", **Ending("stopped", "stopped", why).as_dict(), step=None)
    except Exception as error:
        if (said := shortage(error)) is not None:
            attempt.out_of_memory(error, said)
            return EXIT_OUT_OF_MEMORY
        return _fail(channel, error)
    return 0


def _guard() -> None:
    """From now on whatever tries to get out in Python is told with its file and line, where this process is sealed."""
    if (tell := tell_from_environment()) is not None:
        from engine.seal.proof.guard import install

        install(tell, loopback=SOCKETS == "loopback")


def _fail(channel: Channel, error: Exception) -> int:
    """Tell how `error` ends the run; the exit status."""
    ending = ending_of_error(error)
    if isinstance(error, Problem):
        channel.send("problem", **error.as_dict())
    channel.send("outcome", **ending.as_dict(), step=None)
    print_error(error)  # engine.log: the place in the code, for whoever wants it
    if ending.cause in ("device_lost", "driver_fault"):
        return EXIT_DEVICE
    return EXIT_PROBLEM if isinstance(error, Problem) else EXIT_FAULT


def _quiet_libraries() -> None:
    """Keep out of engine.log what libraries tell each other: their deprecations, bars, and parts they do without."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@contextmanager
def _kept_to_the_log() -> Iterator[None]:
    """Whatever fails within the block is printed and goes no further."""
    try:
        yield
    except Exception as error:
        with suppress(MemoryError):
            print_error(error)


class _StoppedBefore(Exception):
    """A stop was asked for while the run was prepared."""


class _DiskTooSmall(CausedProblem):
    """The disk has no room for what the run will write."""

    cause = "disk_full"


class _Attempt:
    """One process's try at a run, with the fields that the ladder `adjusted`."""

    def __init__(self, run: RunDirectory, channel: Channel, adjusted: Mapping[str, Any], leash: Leash | None = None):
        self.run, self.channel, self.adjusted, self.leash = run, channel, adjusted, leash or Leash()
        self.expected: Expected | None = None
        self.allowed_bytes: int | None = None

    def train(self) -> None:
        """From the run's folder to the outcome. Raises Problem, and whatever memory that ran out raises."""
        channel, run = self.channel, self.run
        channel.send("phase", phase="preparing", detail="starting the training libraries", done=0, total=0)
        with swift_imports():
            from engine.fit.memory_rows import Expected
            from engine.fit.rates import remember_speed
            from engine.propose import predict, settings_of
            from engine.train.recipe import Recipe
            from engine.train.resuming import begin_resume
            from engine.train.setup import build
        from profiles.geometry import read_geometry
        from profiles.hardware import probe
        from profiles.learnt import device_name

        asked = run.spec()
        spec = adjusted_spec(asked, self.adjusted)
        hardware = probe(run.checkpoints)  # before this process takes any of it
        device = hardware.gpus[0] if hardware.gpus else None
        self.allowed_bytes = device.free_bytes if device is not None else hardware.ram.available_bytes
        supervisor = ProcessIdentity.of(os.getppid())
        base = BaseReading(spec.model.path)
        anew = begin_resume(run, asked, base, self._report_phase)
        setup = build(
            spec,
            self._report_phase,
            keep=run.data,
            session=str(supervisor),
            asked=asked,
            base=base,
            anyway=goes_on_anyway(),
            anew=anew,
            link=self._ask_for_link,
        )
        self._shrink_evaluation(setup)
        geometry = read_geometry(spec.model.path)
        estimate = predict(spec, geometry, hardware)
        settings = settings_of(spec, geometry, hardware)
        capability = device.capability if device is not None else None
        self.expected = Expected(geometry, settings, estimate, device_name(hardware), capability)
        channel.send(
            "plan",
            **setup.plan_facts(),
            predicted=dict(estimate.components),
            predicted_peak_bytes=estimate.peak_bytes,
        )
        self._require_disk(setup, geometry)
        self._write_account(setup)
        for note in setup.dataset.notes:
            channel.send("note", text=note)
        if len(setup.held_out) < len(setup.dataset.held_out):
            held_out = f"{len(setup.held_out):,} of {len(setup.dataset.held_out):,} held-out rows"
            channel.send("note", text=f"held-out loss is measured on {held_out} (evaluation.rows)")
        answer_batch = self.adjusted.get(ANSWER_BATCH, USUAL_ANSWER_BATCH)
        recipe = Recipe(setup, run, channel, answer_batch=answer_batch, expected=self.expected)
        self.leash.let_save()
        ending = recipe.train()
        channel.send("outcome", **ending.as_dict(), step=recipe.progress.step)
        if recipe.pace is not None:
            with _kept_to_the_log():  # what later predictions would learn is not worth a run's good end
                remember_speed(hardware, geometry, settings, *recipe.pace)

    def out_of_memory(self, error: Exception, said: str) -> None:
        """Tell the supervisor, which starts another attempt with less; then, as far as memory goes, whoever learns."""
        where = where_it_ran_out(error)
        import torch

        device = "cuda" if torch.cuda.is_initialized() else "cpu"
        self.channel.send("out_of_memory", where=where, what=said, device=device)
        with suppress(MemoryError):
            print_error(error)
        if self.expected is not None and self.allowed_bytes is not None:
            with _kept_to_the_log():
                from engine.fit.memory_rows import remember

                remember(self.expected, outcome="out of memory", process_bytes=self.allowed_bytes)

    def _report_phase(self, phase: str, detail: str, done: int, total: int) -> None:
        """Raises _StoppedBefore when a stop was asked for: preparing may take hours, and no step is there to finish."""
        self.channel.send("phase", phase=phase, detail=detail, done=done, total=total)
        if self.channel.stop_is_asked():
            raise _StoppedBefore

    def _shrink_evaluation(self, setup: Setup) -> None:
        """Put fewer held-out rows into a batch where that is what memory ran out of."""
        if (tokens := self.adjusted.get(EVALUATION_TOKENS)) is not None:
            # Since then the step's own rows may have become fewer still, and those of evaluation with them.
            setup.evaluation_tokens = min(tokens, setup.evaluation_tokens)

    def _write_account(self, setup: Setup) -> None:
        """Tell where the data came from, which the supervisor keeps, and keep the rows that were set aside. A disk that
        became full since the start costs these alone."""
        dataset = setup.dataset
        self.channel.send("lineage", data=dataset.lineage())
        try:
            if dataset.reject_count:
                dataset.write_rejects(self.run.rejects_path)
        except OSError as error:
            self.channel.send("note", text=f"the rows set aside were not written down: {error.strerror}")

    def _ask_for_link(self, shard: str) -> bool:
        """Have the supervisor give the run's data a name for that shard of the cache; False where it is gone."""
        self.channel.send("keep_shard", shard=shard)
        return not self.channel.supervisor_gone

    def _require_disk(self, setup: Setup, geometry: Any) -> None:
        """Raises Problem before a first start on a disk without room for all the run will write; later it pauses."""
        from engine.run.checkpoints.manifest import list_checkpoints
        from engine.run.disk_room import disk_plan, free_bytes, require_room

        if not list_checkpoints(self.run.checkpoints):
            rows = len(setup.dataset.train) + len(setup.held_out)
            plan = disk_plan(setup.spec, geometry, setup.total_steps, rows)
            try:
                require_room(plan, setup.spec, free_bytes(self.run.checkpoints), self.run.path.parent)
            except Problem as problem:
                raise _DiskTooSmall(**problem.as_dict()) from None


if __name__ == "__main__":
    status = main()
    if status == EXIT_DEVICE:
        # What libraries do on their way out waits for the device, which may never answer.
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
