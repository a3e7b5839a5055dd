"""Journals torn, changed, cut short or replaced, and disks that refuse: what was whole is read, the rest is told."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fault_ledger import Ledger
from waiting import wait_until

from engine.run.directory import RunDirectory
from engine.run.launch import launch
from engine.run.telemetry.checksum import with_checksum
from engine.run.telemetry.events import Event
from engine.run.telemetry.folding import Folding, fold
from engine.run.telemetry.journal import JournalTail, JournalWriter, last_event
from engine.run.telemetry.reading import FollowedRun, open_journal, read_state
from engine.run.telemetry.recording import Recording
from engine.run.telemetry.records import to_line
from engine.run.telemetry.snapshot import load_snapshot, save_snapshot
from engine.spec import RunSpec


def read_all(path: Path) -> tuple[list[Event], int]:
    tail = JournalTail(path)
    return [event for batch in iter(tail.read, []) for event in batch], tail.damaged


def long_journal(path: Path, steps: int) -> list[Event]:
    """A journal as a supervisor writes it, with readings of the devices and notes between its steps; its events."""
    chance = random.Random(steps)
    kinds: list[tuple[str, dict[str, Any]]] = [("attempt", {"number": 1, "resumed_from": None, "worker_pid": 1})]
    for number in range(1, steps + 1):
        rest = {"learning_rate": 1e-3, "gradient_norm": chance.random(), "target_tokens": 7, "tokens": 16}
        sums = {"seconds": 0.5, "memory_bytes": 9, "tokens_seen": 16 * number, "training_seconds": 0.5 * number}
        kinds.append(("step", {"step": number, "epoch": number / steps, "loss": chance.random(), **rest, **sums}))
        if number % 3 == 0:
            kinds.append(("device", {"cpu_share": chance.random(), "gpus": []}))
        if number % 1000 == 0:
            kinds.append(("note", {"text": f"größer {number}"}))
    events = [
        {"v": 2, "seq": sequence, "at": 1.75e9 + sequence, "kind": kind, **fields}
        for sequence, (kind, fields) in enumerate(kinds, 1)
    ]
    path.write_bytes(b"".join(with_checksum(to_line(event)) for event in events))
    return events


@pytest.fixture
def journal(spec: RunSpec, script: Callable[..., None]) -> bytes:
    """The journal of a real run, from its first line to its end."""
    script(["garble", '{"kind":"note","text":"größer ✓"}\n'], ["save_at", 2], ["train", 5, 0])
    run = launch(spec)
    wait_until(lambda: read_state(run).outcome == "finished")
    return run.events_path.read_bytes()


def test_a_journal_torn_at_every_byte_loses_only_its_torn_line(journal: bytes, tmp_path: Path, ledger: Ledger):
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(journal)
    written, damaged = read_all(torn)
    ends = [place + 1 for place, byte in enumerate(journal) if byte == ord("\n")]
    assert len(written) == len(ends) and damaged == 0
    # The devices are read beside the run, which may be over before they are for the first time.
    assert len([event for event in written if event["kind"] != "device"]) == 12
    assert all(json.loads(line)["crc"] for line in journal.splitlines()), "lines stay JSON"
    for cut in range(len(journal) + 1):
        torn.write_bytes(journal[:cut])
        tail = JournalTail(torn)
        complete = written[: sum(end <= cut for end in ends)]
        assert [event for batch in iter(tail.read, []) for event in batch] == complete and tail.damaged == 0

        # The line that lacked only its newline is whole once the next one begins on a line of its own.
        kept = written[: sum(end - 1 <= cut for end in ends)]
        writer = JournalWriter(torn)
        added = [writer.append("step", step=1), writer.append("device", gpus=[])]
        writer.close()
        assert tail.read() == kept[len(complete) :] + added
        events, damaged = read_all(torn)
        if events[: len(kept)] != kept:
            ledger.lost("torn journal")
        assert events == kept + added and [event["seq"] for event in events] == list(range(1, len(kept) + 3))
        assert damaged == tail.damaged == (cut not in [0, *ends] and cut + 1 not in ends)
        assert last_event(torn) == added[-1]
    ledger.injected("torn journal line", len(journal) + 1)


def test_a_flipped_bit_anywhere_in_a_line_is_noticed_and_costs_no_other_line(
    journal: bytes, tmp_path: Path, ledger: Ledger
):
    path = tmp_path / "events.jsonl"
    path.write_bytes(journal)
    written, _ = read_all(path)
    run = RunDirectory(tmp_path)
    starts = [0, *(place + 1 for place, byte in enumerate(journal) if byte == ord("\n"))]
    flips = 0
    for index in (0, 1, len(written) // 2, len(written) - 2):
        for place in range(starts[index], starts[index + 1]):
            changed = bytearray(journal)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            events, damaged = read_all(path)
            others = [event for event in written if event["seq"] != index + 1]
            # With its newline gone a line joins the next; both are whole in there.
            assert events == (written if place == starts[index + 1] - 1 else others), place
            assert 1 <= damaged <= 2, "a bit that makes a newline makes two damaged lines"
            with closing(JournalWriter(path)) as writer:
                assert writer.append("step", step=1)["seq"] == len(written) + 1
            if place % 40 == 0:
                assert read_state(run).damaged == damaged + 1  # the step just written lacks what a step has
            flips += 1
    ledger.injected("flipped bit in a journal", flips)


def test_a_flipped_bit_is_noticed_also_in_the_lines_that_opening_a_long_journal_leaves_out(
    tmp_path: Path, ledger: Ledger
):
    run = RunDirectory(tmp_path)
    whole = long_journal(run.events_path, 20_000)
    assert read_state(run) == fold(whole)
    good = run.events_path.read_bytes()
    chance = random.Random(4)
    for _ in range(3):
        changed = bytearray(good)
        changed[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        run.events_path.write_bytes(changed)
        events, damaged = read_all(run.events_path)
        folding = Folding()
        folding.count_damaged(damaged)
        for event in events:
            folding.add(event)
        opened = read_state(run)
        assert opened.damaged == damaged >= 1
        # The step that was lost can have been one that the curve keeps.
        assert replace(opened, steps=()) == replace(folding.state(), steps=())
        assert len(set(opened.steps) ^ set(folding.state().steps)) <= 4
    ledger.injected("flipped bit in a journal", 3)


def test_a_damaged_snapshot_is_passed_over(tmp_path: Path, ledger: Ledger):
    run = RunDirectory(tmp_path)
    long_journal(run.events_path, 60)
    folding, tail = open_journal(run)
    save_snapshot(run, folding.state(), folding.recent, tail.offset)
    good, state = run.snapshot_path.read_bytes(), folding.state()
    assert load_snapshot(run) is not None and read_state(run) == state
    chance = random.Random(0)
    for place in range(0, len(good) - 1, 7):
        changed = bytearray(good)
        changed[place] ^= 1 << chance.randrange(8)
        run.snapshot_path.write_bytes(changed)
        assert load_snapshot(run) is None, place
        run.snapshot_path.write_bytes(good[:place])
        assert load_snapshot(run) is None, place
        if place % 70 == 0:
            assert read_state(run) == state
    ledger.injected("damaged snapshot", 2 * len(range(0, len(good) - 1, 7)))


@pytest.mark.parametrize("takes_back", [True, False])
def test_a_disk_that_fills_up_at_any_byte_of_a_line_costs_only_that_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, takes_back: bool
):
    """The kernel writes what fits and refuses the rest; the half line goes, or where it cannot, counts as damaged."""
    real_write, missing = os.write, 0

    def write(descriptor: int, data: bytes) -> int:
        if len(data) <= missing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(descriptor, data[: len(data) - missing])

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "write", write)
    if not takes_back:
        monkeypatch.setattr(os, "ftruncate", refuse)
    path = tmp_path / "events.jsonl"
    writer, follower = JournalWriter(path), JournalTail(path)
    line_bytes = len(with_checksum(to_line(writer.append("step", step=1, text="✓"))))
    events, half_lines = follower.read(), 0
    for missing in range(1, line_bytes + 1):
        before = path.stat().st_size
        try:
            event = writer.append("step", step=1, text="✓")
        except OSError:
            half_lines += path.stat().st_size > before
        else:
            assert missing == 1 and not takes_back, "all but the newline, which the next line brings"
            events.append(event)
        missing = 0
        events.append(writer.append("step", step=2))
        follower.read()
    found, damaged = read_all(path)
    assert found == events and [event["seq"] for event in found] == list(range(1, len(events) + 1))
    assert damaged == follower.damaged == half_lines and (half_lines == 0) == takes_back
    ledger.injected("disk full inside a journal line", line_bytes)


def test_a_disk_that_does_not_confirm_is_told_once_and_no_event_is_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
):
    run = RunDirectory(tmp_path)
    recording = Recording(run, Folding())

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        for number in (1, 2, 3):
            recording.add("checkpoint", step=number, bytes=1, seconds=0.1, best=False, held_out_loss=None)
    recording.add("note", text="after")
    recording.close()
    events, damaged = read_all(run.events_path)
    assert [event.get("step") for event in events] == [1, None, None, 2, 3, None] and damaged == 0
    notes = [event["text"] for event in events if event["kind"] == "note"]
    # The audit log, of which the same is true, has a note of its own.
    assert [("audit log" in note, "Input/output error" in note) for note in notes[:2]] == [(True, True), (False, True)]
    assert len(notes) == 3 and "does not confirm" in notes[1]
    assert read_state(run) == recording.state()
    ledger.injected("EIO on the journal's fsync", 4)


def test_the_reserve_is_taken_again_once_the_disk_takes_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a full disk a note gets the reserve; what is written once there is room again restores it."""
    run = RunDirectory(tmp_path)
    recording = Recording(run, Folding())
    real_write, real_allocate = os.write, os.posix_fallocate

    def full(descriptor: int, data: bytes) -> int:
        if run.ballast_path.exists() and run.ballast_path.stat().st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(descriptor, data)

    def no_room(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        patched.setattr(os, "posix_fallocate", no_room)
        recording.add("step", step=1)  # can wait, and is told as missing
        recording.add("note", text="needs the reserve")
        assert not run.ballast_path.exists() or run.ballast_path.stat().st_size == 0
    assert os.posix_fallocate is real_allocate
    recording.add("note", text="room again")
    assert run.ballast_path.stat().st_size > 0
    texts = [event["text"] for event in read_all(run.events_path)[0]]
    assert texts == [
        "needs the reserve",
        "records before this one could not be written: 1; see engine.log",
        "room again",
    ]
    recording.close()
    assert not run.ballast_path.exists()


def test_who_follows_a_journal_that_is_cut_short_or_replaced_or_gone_reads_it_anew(tmp_path: Path, ledger: Ledger):
    run = RunDirectory(tmp_path)
    long_journal(run.events_path, 30)
    good = run.events_path.read_bytes()
    lines = good.splitlines(keepends=True)
    other = JournalWriter(tmp_path / "other.jsonl")
    while other.offset() <= len(good):
        other.append("note", text="another run's")
    changes: list[Callable[[], Any]] = [
        lambda: run.events_path.write_bytes(b""),
        lambda: run.events_path.write_bytes(b"".join(lines[:20])),
        lambda: run.events_path.write_bytes(good[:-100]),
        lambda: run.events_path.write_bytes((tmp_path / "other.jsonl").read_bytes()),
        run.events_path.unlink,
    ]
    for change in changes:
        run.events_path.write_bytes(good)
        followed, tail = FollowedRun(run), JournalTail(run.events_path)
        assert len(tail.read()) == len(lines) and not followed.catch_up()
        change()
        assert followed.catch_up() and followed.state() == read_state(run)
        there = read_all(run.events_path)[0] if run.events_path.exists() else []
        assert (tail.read(), tail.begun_anew) == (there, 1)
        # And goes on from there, be it in a new file.
        writer = JournalWriter(run.events_path)
        added = writer.append("note", text="goes on")
        writer.close()
        assert followed.catch_up() and followed.state() == read_state(run)
        assert tail.read() == [added] and not followed.catch_up()
        ledger.injected("journal cut short, replaced or gone")
