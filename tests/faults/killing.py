"""A real run whose processes are killed at moments of chance, gone on with, and compared with one left alone."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from fault_ledger import Ledger
from training import make_spec, write_chats

from engine.run.directory import RunDirectory
from engine.run.launch import launch, resume
from engine.run.liveness import liveness
from engine.run.processes.recorded import recorded_processes
from engine.run.telemetry.events import RunState
from engine.run.telemetry.journal import JournalTail
from engine.run.telemetry.reading import read_state
from engine.spec import RunSpec
from profiles.problem import Problem

STEPS, SAVE_EVERY = 120, 8
VICTIMS = ("worker", "supervisor", "both")
_PATIENCE_SECONDS = 300.0


def a_spec(folder: Path, model: Path) -> RunSpec:
    """Dropout, packing, accumulation, weighted sources, a held-out file: all whose state a resume must get right."""
    first = write_chats(folder / "first.jsonl", 96)
    second = write_chats(folder / "second.jsonl", 40, seed=3)
    held_out = write_chats(folder / "held-out.jsonl", 6, seed=9)
    sources = [{"path": str(first), "weight": 2.0}, {"path": str(second), "weight": 1.0}]
    return make_spec(
        model,
        first,
        held_out,
        data={"train": sources, "sequence_length": 96},
        method={"dropout": 0.1},
        train={"max_steps": STEPS, "gradient_accumulation": 2, "probe": False},
        evaluation={"every_steps": SAVE_EVERY, "answers": 2, "max_new_tokens": 4},
        checkpoint={"every_steps": SAVE_EVERY, "keep": 2},
    )


@dataclass(frozen=True)
class Result:
    """What is left of a finished run: its files by their sums, what was measured, and the losses that were told of each
    step: one, however often it was taken."""

    files: dict[str, str]
    losses: dict[int, set[float]]
    measured: list[tuple[str, int, float | None]]


def result_of(run: RunDirectory) -> Result:
    """Everything of a finished run that must not depend on what it went through."""
    state = read_state(run)
    assert state.outcome == "finished", (state.why, run.log_path.read_text()[-3000:])
    newest = max(run.checkpoints.glob("step-*"))
    # The manifest tells when and under what circumstances; what was learnt is in the other files.
    files = [path for path in newest.iterdir() if path.name != "manifest.json"]
    outputs = list(run.outputs.rglob("*.safetensors"))  # an adapter, or a model
    assert outputs
    files += outputs
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    events = JournalTail(run.events_path).read(1 << 30)
    losses: dict[int, set[float]] = {}
    for event in events:
        if event["kind"] == "step":
            losses.setdefault(event["step"], set()).add(event["loss"])
    measured = [(each.when, each.step, each.held_out_loss) for each in state.evaluations]
    return Result({"checkpoint": newest.name, **sums}, losses, sorted(measured))


def undisturbed(spec: RunSpec) -> Result:
    """What becomes of `spec` where nobody kills anything."""
    run = launch(spec)
    wait_until(lambda: liveness(run) != "live", run)
    return result_of(run)


@dataclass
class Survivor:
    """One run of `spec`, which is to end as `expected` whatever is done to it."""

    spec: RunSpec
    expected: Result
    ledger: Ledger
    generator: random.Random
    victims: tuple[str, ...] = VICTIMS
    kills: int = 0
    repeated: list[int] = field(default_factory=list)
    """Steps that were taken again after each kill."""
    unheard: set[int] = field(default_factory=set)
    """Steps that a worker took and saved when its supervisor was dead: in the checkpoint, but told to nobody."""
    unmeasured: set[int] = field(default_factory=set)
    """Those at which it may have measured then; also the last that was told, since measuring comes after."""

    def live_through(self, kills: int) -> RunDirectory:
        """Launch the run, kill it `kills` times (or until it is done), go on with it each time, and compare the end."""
        run = launch(self.spec)
        while self.kills < kills and not _finished(run):
            if victims := self._kill(run):
                self.kills += 1
                self._after_a_kill(run, victims)
            elif liveness(run) != "live" and not _finished(run):
                self._go_on_after_too_many(run)
        self._to_the_end(run)
        self.compare(run)
        return run

    def compare(self, run: RunDirectory) -> None:
        """See that the run, which is over, ended as expected."""
        result, expected = result_of(run), self._expected(result_of(run))
        self.ledger.resumed("SIGKILL", result == expected)
        assert result == expected, (result, expected)

    def _expected(self, result: Result) -> Result:
        """What is to be left, without what was told to nobody."""
        untold = self.unheard - result.losses.keys()
        losses = {step: told for step, told in self.expected.losses.items() if step not in untold}
        unmeasured = self.unmeasured - {step for when, step, _ in result.measured if when == "during"}
        measured = [each for each in self.expected.measured if each[0] != "during" or each[1] not in unmeasured]
        return replace(self.expected, losses=losses, measured=measured)

    def _kill(self, run: RunDirectory) -> tuple[str, ...]:
        """Kill something of the run at a moment of chance; whom. Nobody when it was gone by then."""
        self._wait_for_the_moment(run)
        victim = self.generator.choice(self.victims)
        processes = recorded_processes(run)
        names = ("supervisor", "worker") if victim == "both" else (victim,)
        killed = [processes[name].send(signal.SIGKILL) for name in names if name in processes]
        if not any(killed):
            return ()
        inside = bool(list(run.checkpoints.glob(".staging-*"))) and "worker" in names
        self.ledger.injected(f"SIGKILL of the {victim if victim != 'both' else 'worker and supervisor'}")
        if inside:
            self.ledger.survived_inside_a_save()
        return names

    def _wait_for_the_moment(self, run: RunDirectory) -> None:
        """A third of the moments are while a process starts, a third at any step, a third inside a save."""
        kind = self.generator.choice(("starting", "training", "saving"))
        if kind == "starting":
            time.sleep(self.generator.uniform(0.0, 4.0))
            return
        step = read_state(run).step + self.generator.randrange(1, SAVE_EVERY * 2)
        wait_until(lambda: liveness(run) != "live" or read_state(run).step >= step, run)
        if kind == "saving":
            wait_until(lambda: liveness(run) != "live" or any(run.checkpoints.glob(".staging-*")), run, 0.0)
            time.sleep(self.generator.uniform(0.0, 0.02))

    def _after_a_kill(self, run: RunDirectory, victims: tuple[str, ...]) -> None:
        """See that nothing that was complete is gone, and have the run go on where it does not by itself."""
        before = read_state(run)
        told = [int(each) for each in re.findall(r'"kind":"checkpoint","step":(\d+)', run.events_path.read_text())]
        # A person is quick at times: then a worker without a supervisor still saves while the next engine starts.
        if liveness(run) == "live" or self.generator.random() < 0.5:
            wait_until(lambda: _gone_or_started_again(run, before), run)
        if liveness(run) != "live" and not _finished(run):
            self._resume(run)
        wait_until(lambda: read_state(run).attempts > before.attempts or liveness(run) != "live", run)
        now = read_state(run)
        if now.attempts > before.attempts:
            went_on_from = now.resumed_from or 0
            if told and went_on_from < max(told):
                self.ledger.lost("SIGKILL")
            assert went_on_from >= max(told, default=0)
            self.repeated.append(max(0, before.step - went_on_from))
            assert self.repeated[-1] <= SAVE_EVERY
            if "supervisor" in victims:
                self.unheard.update(range(before.step + 1, went_on_from + 1))
                self.unmeasured.update(range(before.step, went_on_from + 1))

    def _to_the_end(self, run: RunDirectory) -> None:
        wait_until(lambda: liveness(run) != "live", run)
        while not _finished(run):
            self._go_on_after_too_many(run)
            wait_until(lambda: liveness(run) != "live", run)

    def _go_on_after_too_many(self, run: RunDirectory) -> None:
        """A run that was killed too often in one place has ended as failed, and a person goes on with it."""
        state = read_state(run)
        assert state.outcome is None or state.cause == "worker_killed", (state.why, run.log_path.read_text()[-3000:])
        self._resume(run)

    def _resume(self, run: RunDirectory) -> None:
        """Go on with the run; half of the time two people do so at once, of whom one is refused."""
        people = self.generator.choice((1, 2))
        with ThreadPoolExecutor(people) as pool:
            answers = [pool.submit(resume, run) for _ in range(people)]
        refused = [error for answer in answers if (error := answer.exception()) is not None]
        assert len(refused) == people - 1 and all(isinstance(error, Problem) for error in refused), refused
        if refused:
            self.ledger.injected("two resumes at once")


def wait_until(condition: Callable[[], object], run: RunDirectory, pause: float = 0.02) -> None:
    """Wait for `condition`; fails with the end of the run's log after a long while."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with suppress(FileNotFoundError):  # a folder that was renamed between two looks
            if condition():
                return
        assert time.monotonic() < deadline, run.log_path.read_text(errors="replace")[-3000:]
        time.sleep(pause)


def _gone_or_started_again(run: RunDirectory, before: RunState) -> bool:
    """Whether the engine is gone with all its processes, or its supervisor has begun another attempt."""
    if liveness(run) == "live":
        return read_state(run).attempts > before.attempts
    return not any(process.is_alive() for process in recorded_processes(run).values())


def _finished(run: RunDirectory) -> bool:
    return liveness(run) != "live" and read_state(run).outcome == "finished"


def quiet_threads() -> None:
    """One thread in each process, so that sums are added in one order however many runs go on at once."""
    os.environ["OMP_NUM_THREADS"] = "1"
