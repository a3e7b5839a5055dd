"""A journal's fold: what a long one keeps, that opening it reads the same as following it, and what a resume undoes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.run.directory import RunDirectory
from engine.run.telemetry.checksum import with_checksum
from engine.run.telemetry.events import SERIES_LIMIT, Evaluation, RunState
from engine.run.telemetry.folding import Folding, fold
from engine.run.telemetry.journal import JournalTail, JournalWriter
from engine.run.telemetry.reading import open_journal, read_state
from engine.run.telemetry.series import stride_for
from engine.run.telemetry.snapshot import save_snapshot

Steps = list[tuple[float | None, float | None]]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def step(number: int, loss: float | None = 1.0, norm: float | None = 1.0, **more: Any) -> dict[str, Any]:
    """A step's fields in the order in which the worker sends them."""
    fields = {"step": number, "epoch": number / 100, "loss": loss, "learning_rate": 1e-3, "gradient_norm": norm}
    return fields | {"target_tokens": 7, "tokens": 16, "seconds": 0.5, "memory_bytes": 9} | more


def totals(count: int) -> dict[str, Any]:
    """What the supervisor adds."""
    return {"tokens_seen": 16 * count, "training_seconds": 0.5 * count}


def numbered(events: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for sequence, (kind, fields) in enumerate(events, 1):
        yield {"v": 2, "seq": sequence, "at": 1e9 + sequence, "kind": kind, **fields}


def sealed(record: dict[str, Any]) -> bytes:
    """`record` as a line with its checksum."""
    return with_checksum(json.dumps(record, separators=(",", ":")).encode() + b"\n")


def write(run: RunDirectory, events: Iterator[tuple[str, dict[str, Any]]]) -> None:
    with run.events_path.open("wb") as file:
        file.writelines(sealed(event) for event in numbered(events))


def follow(run: RunDirectory) -> RunState:
    """The state of somebody who has followed the run from its beginning, event by event."""
    folding, tail = Folding(), JournalTail(run.events_path)
    for event in (event for events in iter(tail.read, []) for event in events):
        folding.add(event)
    folding.count_damaged(tail.damaged)
    return folding.state()


def random_steps(count: int) -> Steps:
    chance = random.Random(count)
    steps: Steps = [(3 / (1 + n / 1000) + chance.gauss(0, 0.1), chance.lognormvariate(0, 0.2)) for n in range(count)]
    for place in chance.sample(range(count), 5):
        steps[place] = (chance.choice([None, 40.0, -3.0]), chance.choice([None, 500.0]))
    return steps


def long_run(steps: Steps) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "attempt", {"number": 1, "resumed_from": None, "worker_pid": 5}
    yield "plan", {"planned_steps": len(steps)}
    for number, (loss, norm) in enumerate(steps, 1):
        yield "step", step(number, loss, norm, source_losses=[number / 4, None], **totals(number))
        if number % 3 == 0:
            yield "device", {"cpu_share": number / len(steps), "gpus": []}
        if number % 5000 == 0:
            more = {"metrics": {"accuracy": 0.5}, "source_losses": [2.0, None]}
            yield "evaluation", {"when": "during", "step": number, "held_out_loss": 1.0, "answers": 0, **more}
            yield "note", {"text": f'at "kind":"step","step":{number}'}


@pytest.mark.parametrize("count", [4096, 4097, 100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_long_run_keeps_its_first_and_last_step_and_the_extremes_of_every_stretch(run: RunDirectory, count: int):
    steps = random_steps(count)
    write(run, long_run(steps))
    state = read_state(run)
    assert len(state.steps) <= SERIES_LIMIT
    assert [point.step for point in state.steps] == sorted({point.step for point in state.steps})
    assert state.steps[0].step == 1 and state.steps[-1].step == count
    for point in state.steps:
        assert (point.loss, point.gradient_norm) == steps[point.step - 1]
    if count <= SERIES_LIMIT:
        assert len(state.steps) == count
    # No stretch of about a hundredth of the run looks calmer than it was: its spikes and gaps are all there.
    stretch = 1 << (count // 100).bit_length()
    for start in range(0, count + 1, stretch):
        there = range(max(1, start), min(count + 1, start + stretch))
        kept = [(point.loss, point.gradient_norm) for point in state.steps if point.step in there]
        losses, norms = ([each for each in column if each is not None] for column in zip(*kept, strict=True))
        all_losses, all_norms = zip(*(steps[number - 1] for number in there), strict=True)
        assert min(losses) == min(each for each in all_losses if each is not None)
        assert max(losses) == max(each for each in all_losses if each is not None)
        assert max(norms) == max(each for each in all_norms if each is not None)
        assert (None in all_losses) == (len(losses) < len(kept))
    assert (state.step, state.planned_steps, state.tokens_seen) == (count, count, 16 * count)
    assert (state.training_seconds, state.recent_tokens_per_second) == (0.5 * count, 32.0)
    assert len(state.evaluations) == len(state.notes) == count // 5000
    assert state.device["cpu_share"] == count // 3 * 3 / count
    assert state.source_losses == (count / 4, None)


@pytest.mark.parametrize("seed", range(2))
def test_opening_a_troubled_journal_gives_the_state_of_following_it(run: RunDirectory, seed: int):
    """Resumes, torn lines, odd field orders, missing totals, unknown kinds: the sweep must see them all."""
    chance = random.Random(seed)
    resumed_at: list[int] = []

    def troubled() -> Iterator[tuple[str, dict[str, Any]]]:
        number = done = 0
        for _ in range(50_000):
            number, done = number + 1, done + 1
            fields = step(number, chance.choice([chance.random(), None]), chance.random(), **totals(done))
            if 20_000 < done < 22_000 and seed % 2:
                fields = dict(reversed(fields.items()))
            if 30_000 < done < 30_100 or seed == 0:
                del fields["tokens_seen"], fields["training_seconds"]
            yield "step", fields
            if chance.random() < 0.0002:
                number -= chance.randrange(min(number, 3000))
                resumed_at.append(number)
                yield "attempt", {"number": 2, "resumed_from": number, "worker_pid": 1}
            if chance.random() < 0.001:
                yield chance.choice(["hologram", "step", "evaluation", "note"]), {"kindly": {"kind": "step"}}

    write(run, troubled())
    lines = run.events_path.read_bytes().split(b"\n")
    for place in chance.sample(range(len(lines) - 1), 20):
        lines[place] = lines[place][: chance.randrange(1, len(lines[place]))]
    run.events_path.write_bytes(b"\n".join(lines))

    followed = follow(run)
    opened = read_state(run)
    assert replace(opened, steps=()) == replace(followed, steps=())
    assert followed.damaged >= 20
    # The curves differ at most in the stretches in which a resume took up again.
    stride = stride_for(1, followed.step)
    torn = {number // stride for number in resumed_at}
    whole, again = ([each for each in state.steps if each.step // stride not in torn] for state in (followed, opened))
    assert whole == again and len(whole) > len(followed.steps) // 2

    # And from a snapshot on, wherever it was taken.
    folding, tail = Folding(), JournalTail(run.events_path)
    for _ in range(3):
        for event in tail.read():
            folding.add(event)
    folding.count_damaged(tail.damaged)
    save_snapshot(run, folding.state(), folding.recent, tail.offset)
    assert replace(read_state(run), steps=()) == replace(followed, steps=())


def test_a_snapshot_saves_reading_and_is_passed_over_when_it_does_not_fit(run: RunDirectory):
    write(run, long_run(random_steps(6000)))
    whole = read_state(run)
    assert whole.evaluations[0].source_losses == (2.0, None)
    folding, tail = open_journal(run)
    save_snapshot(run, folding.state(), folding.recent, tail.offset)
    good = run.snapshot_path.read_bytes()

    # It is used: what is left out of the journal before its end is still known.
    lines = run.events_path.read_bytes().split(b"\n")
    lines[10] = lines[10].replace(b'"loss":', b'"lost":')
    run.events_path.write_bytes(b"\n".join(lines))
    assert read_state(run) == whole

    record = json.loads(good)
    del record["crc"]
    bad_records = (
        record | {"v": 1},
        record | {"offset": record["offset"] - 1},
        record | {"offset": 10**9},
        record | {"state": record["state"] | {"seq": 4}},
        record | {"state": {}},
    )
    for bad in (b"", good[:-20], b"[]", json.dumps(record).encode(), *map(sealed, bad_records)):
        run.snapshot_path.write_bytes(bad)
        assert read_state(run).damaged == 1, bad[:60]


def test_a_resume_undoes_what_came_after_its_checkpoint(run: RunDirectory):
    writer = JournalWriter(run.events_path)
    writer.append("attempt", number=1, resumed_from=None, worker_pid=1)
    writer.append("evaluation", when="before", step=0, held_out_loss=3.0, exact_match=0.1, answers=10)
    for number in range(1, 9):
        writer.append("step", **step(number, loss=9.0, **totals(number)))
        if number % 4 == 0:
            writer.append("checkpoint", step=number, bytes=1, seconds=1.0, best=number == 8, held_out_loss=1.0)
            writer.append("evaluation", when="during", step=number, held_out_loss=2.0)
    writer.append("control", command="stop", by=1)
    writer.append("problem", where="here", what="this", fix="that")
    writer.append("end", outcome="failed", why="this", step=8)
    before = read_state(run)
    assert (before.outcome, before.why, before.stop_requested, before.best_step) == ("failed", "this", True, 8)

    writer.append("attempt", number=2, resumed_from=4, worker_pid=2)
    state = read_state(run)
    assert (state.outcome, state.why, state.problem, state.stop_requested) == (None, "", None, False)
    assert (state.step, state.epoch, state.attempts, state.resumed_from) == (4, 0.04, 2, 4)
    assert (state.checkpoint_step, state.best_step, state.phase) == (4, None, "preparing")
    assert [each.step for each in state.evaluations] == [0, 4]
    assert state.recent_seconds_per_step is None and state.seconds_left is None

    writer.append("step", **step(5, loss=1.0, **totals(9)))
    state = read_state(run)
    assert [(point.step, point.loss) for point in state.steps] == [(1, 9.0), (2, 9.0), (3, 9.0), (4, 9.0), (5, 1.0)]
    assert state.tokens_seen == 9 * 16, "work done twice was done"


def test_events_out_of_form_are_counted_and_unknown_ones_only_move_the_time_on():
    bad: list[tuple[str, dict[str, Any]]] = [
        ("step", {"step": 1}),
        ("step", step(1, loss="low")),  # type: ignore[arg-type]
        ("step", step(1) | {"seconds": None}),
        ("evaluation", {"when": "during", "step": "first", "held_out_loss": 1.0}),
        ("phase", {}),
        ("memory", {"measured": 3, "peak_bytes": 1}),
    ]
    # A journal of a run before there were sources and metrics.
    older = ("evaluation", {"when": "during", "step": 1, "held_out_loss": 1.0})
    good = [older, ("hologram", {"x": 1}), ("step", step(1, loss=float("nan"))), ("note", {"text": "hello"})]
    state = fold(numbered(iter(bad + good)))
    assert (state.damaged, state.seq, state.last_event_at) == (len(bad), len(bad + good), 1e9 + len(bad + good))
    assert [point.loss for point in state.steps] == [None] and state.notes == ("hello",)


def test_folding_goes_on_from_a_state_as_if_it_had_never_stopped():
    events = list(numbered(long_run(random_steps(9000))))
    whole = fold(events)
    assert fold(events[8000:], fold(events[:8000])) == whole
    assert whole.evaluation("before") is None
    assert whole.evaluations == (Evaluation("during", 5000, 1.0, None, 0, {"accuracy": 0.5}, (2.0, None)),)
    assert whole.seconds_left == 0
